"""Near-duplicate texts: MinHash proposes pairs, the exact Jaccard similarity of their n-grams decides."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.filters.captions import words
from data_prep.filters.columns import evidence, ranked
from data_prep.filters.duplicates import Linkage, resolve
from data_prep.filters.near import Pairs, near_pairs

_NUM_HASHES = 128
_RECALL = 0.999  # least chance that a pair just at the threshold is proposed


def ngrams(text: str, length: int) -> frozenset[tuple[str, ...]]:
    """The n-grams of a text, in words; of a shorter text the whole of it."""
    tokens = tuple(words(text))
    if len(tokens) <= length:
        return frozenset([tokens] if tokens else [])
    return frozenset(tokens[start : start + length] for start in range(len(tokens) - length + 1))


def caption_duplicates(
    table: pa.Table, min_jaccard: float = 0.8, ngram: int = 3, linkage: Linkage = "direct"
) -> pa.Table:
    """Pictures whose captions, or edits of one source picture whose instructions, share n-grams of words.

    At least `min_jaccard` of them must be shared. "Make it red" said of two pictures is no duplicate: edits are
    compared only where the pixels of their sources are the same, and never with captions. What is dropped is right for
    certain; a pair just at the threshold is overlooked with a chance below 0.1 %.
    """
    table = ranked(table)
    first_of: dict[Item, int] = {}
    members: list[tuple[int, int]] = []  # row, item
    columns = (table[name].to_pylist() for name in ("kind", "source_pixel_sha256", "text"))
    for row, (kind, source, text) in enumerate(zip(*columns, strict=True)):
        if grams := ngrams(text or "", ngram):
            about = source or "" if kind == "edit" else None
            members.append((row, first_of.setdefault((about, grams), len(first_of))))
    items = list(first_of)
    rows = np.zeros(len(items), np.int64)
    for row, item in reversed(members):
        rows[item] = row  # the best row of each item, as the table is ranked
    signatures = np.stack([_signature(grams) for _, grams in items]) if items else np.empty((0, _NUM_HASHES))
    subjects = np.asarray([_digest(about or "") for about, _ in items], np.uint64)  # so only one's texts share a band
    num_rows, most = _rows_per_band(min_jaccard), 1 - min_jaccard + 1e-12
    proposed: set[tuple[int, int]] = set()
    for start in range(0, _NUM_HASHES - num_rows + 1, num_rows):
        band = _combine(signatures[:, start : start + num_rows].astype(np.uint64), subjects)
        pairs = near_pairs(band, band, 0)
        ordered = pairs.left < pairs.right
        proposed.update(zip(pairs.left[ordered].tolist(), pairs.right[ordered].tolist(), strict=True))
    found = [(i, j, apart) for i, j in sorted(proposed) if (apart := _apart(items[i], items[j])) <= most]
    pairs = Pairs(
        np.asarray([i for i, _, _ in found], np.int64),
        np.asarray([j for _, j, _ in found], np.int64),
        np.asarray([apart for *_, apart in found], np.float64),
    )
    match, distance = resolve(len(items), pairs, linkage)
    lines: list[tuple[int, int, float]] = []  # row, matched row, distance
    for row, item in members:
        best = int(rows[item])
        if match[item] >= 0 and (row == best or linkage == "direct"):
            lines.append((row, int(rows[match[item]]), float(distance[item])))
        elif row != best:  # the very same text as a better row
            lines.append((row, best, 0.0))
    dropped = np.asarray([row for row, _, _ in lines], np.int64)
    keys = table["key"].take(pa.array([row for _, row, _ in lines], pa.int64())).to_pylist()
    distances = np.asarray([apart for *_, apart in lines], np.float64)
    return evidence(table, dropped, "caption_duplicate", ["caption"] * len(keys), keys, distances)


Item = tuple[str | None, frozenset[tuple[str, ...]]]  # pixels that an instruction is about (None: a caption), n-grams


def _apart(one: Item, other: Item) -> float:
    """1 - Jaccard similarity; infinite between texts that are not about the same."""
    return 1 - len(one[1] & other[1]) / len(one[1] | other[1]) if one[0] == other[0] else math.inf


def _signature(grams: frozenset[tuple[str, ...]]) -> NDArray[np.uint64]:
    """MinHash [128] (Broder 1997) by multiply-shift hashing of a 64-bit digest."""
    values = np.asarray([_digest("\0".join(gram)) for gram in grams], np.uint64)
    result: NDArray[np.uint64] = ((values[:, None] * _FACTORS + _OFFSETS) >> np.uint64(32)).min(axis=0)
    return result


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _rows_per_band(similarity: float) -> int:
    """The most rows per band with which a pair of this similarity is still proposed with `_RECALL`."""
    good = [
        rows
        for rows in range(1, 33)
        if 1 - (1 - similarity**rows) ** (_NUM_HASHES // rows) >= _RECALL or similarity == 1
    ]
    return max(good, default=1)


def _combine(rows: NDArray[np.uint64], start: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One 64-bit hash per row of [N, R], and of what each begins with [N]."""
    mixed = start.copy()
    for column in rows.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


_RANDOM = np.random.Generator(np.random.PCG64(20010101))  # fixed, so that results never change
_FACTORS = _RANDOM.integers(0, 2**63, _NUM_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 2**63, _NUM_HASHES, dtype=np.uint64)
