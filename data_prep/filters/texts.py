"""Near-duplicate captions: MinHash proposes pairs, the exact Jaccard similarity of their n-grams decides."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.filters.captions import words
from data_prep.filters.columns import evidence, ranked
from data_prep.filters.duplicates import Linkage, resolve
from data_prep.filters.near import near_pairs, no_pairs, unique_pairs

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
    """Rows of one kind whose texts share at least `min_jaccard` of their n-grams of words.

    What is dropped is right for certain; a pair just at the threshold is overlooked with a chance below 0.1 %.
    """
    table = ranked(table)
    first_of: dict[tuple[str, frozenset[tuple[str, ...]]], int] = {}
    members: list[tuple[int, int]] = []  # row, item
    for row, (kind, text) in enumerate(zip(table["kind"].to_pylist(), table["text"].to_pylist(), strict=True)):
        if grams := ngrams(text or "", ngram):
            members.append((row, first_of.setdefault((kind, grams), len(first_of))))
    items = list(first_of)
    rows = np.zeros(len(items), np.int64)
    for row, item in reversed(members):
        rows[item] = row  # the best row of each item, as the table is ranked
    signatures = np.stack([_signature(grams) for _, grams in items]) if items else np.empty((0, _NUM_HASHES))
    num_rows = _rows_per_band(min_jaccard)
    left, right = set[tuple[int, int]](), list[float]()
    for start in range(0, _NUM_HASHES - num_rows + 1, num_rows):
        band = _combine(signatures[:, start : start + num_rows].astype(np.uint64))
        pairs = near_pairs(band, band, 0)
        ordered = pairs.left < pairs.right
        left.update(zip(pairs.left[ordered].tolist(), pairs.right[ordered].tolist(), strict=True))
    proposed = sorted(left)
    for i, j in proposed:
        (kind_i, a), (kind_j, b) = items[i], items[j]
        right.append(1 - len(a & b) / len(a | b) if kind_i == kind_j else math.inf)
    near = [(i, j, apart) for (i, j), apart in zip(proposed, right, strict=True) if apart <= 1 - min_jaccard + 1e-12]
    columns = [np.asarray(column) for column in zip(*near, strict=True)]
    found = unique_pairs(columns[0], columns[1], columns[2].astype(np.float64)) if near else no_pairs()
    match, distance = resolve(len(items), found, linkage)
    dropped, matched, apart = [], [], []
    for row, item in members:
        best = int(rows[item])
        if match[item] >= 0 and (row == best or linkage == "direct"):
            dropped.append(row), matched.append(int(rows[match[item]])), apart.append(float(distance[item]))
        elif row != best:
            dropped.append(row), matched.append(best), apart.append(0.0)
    keys = table["key"].take(pa.array(matched, pa.int64())).to_pylist()
    indices = np.asarray(dropped, np.int64)
    return evidence(table, indices, "caption_duplicate", ["caption"] * len(keys), keys, np.asarray(apart, np.float64))


def _signature(grams: frozenset[tuple[str, ...]]) -> NDArray[np.uint64]:
    """MinHash [128] (Broder 1997) by multiply-shift hashing of a 64-bit digest."""
    digests = [hashlib.blake2b("\0".join(gram).encode(), digest_size=8).digest() for gram in grams]
    values = np.frombuffer(b"".join(digests), "<u8")
    result: NDArray[np.uint64] = ((values[:, None] * _FACTORS + _OFFSETS) >> np.uint64(32)).min(axis=0)
    return result


def _rows_per_band(similarity: float) -> int:
    """The most rows per band with which a pair of this similarity is still proposed with `_RECALL`."""
    good = [
        rows
        for rows in range(1, 33)
        if 1 - (1 - similarity**rows) ** (_NUM_HASHES // rows) >= _RECALL or similarity == 1
    ]
    return max(good, default=1)


def _combine(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One 64-bit hash per row of [N, R]."""
    mixed = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


_RANDOM = np.random.Generator(np.random.PCG64(20010101))  # fixed, so that results never change
_FACTORS = _RANDOM.integers(0, 2**63, _NUM_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _RANDOM.integers(0, 2**63, _NUM_HASHES, dtype=np.uint64)
