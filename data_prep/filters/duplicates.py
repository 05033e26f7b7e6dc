"""Duplicates in a whole set: pure functions of columns, whose result does not depend on the order of rows.

Each takes a table of `columns.SCHEMA` and returns evidence (`columns.EVIDENCE`): the rows to drop, each with a row
that it duplicates. Of duplicates the largest picture stays, then the smallest key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.filters.columns import EMBEDDING, evidence, groups, hashes, ranked
from data_prep.filters.near import Pairs, near_pairs, no_pairs, unique_pairs

Linkage = Literal["direct", "chain"]


def exact_duplicates(table: pa.Table, of: Literal["bytes", "pixels"] = "pixels") -> pa.Table:
    """Rows whose files, or whose decoded pixels, are the same; of edits both pictures and the instruction."""
    table = ranked(table)
    name = "sha256" if of == "bytes" else "pixel_sha256"
    seen: dict[tuple[int, str, str], int] = {}
    dropped, kept = [], []
    rows = zip(groups(table), table[name].to_pylist(), table[f"source_{name}"].to_pylist(), strict=True)
    for index, (group, digest, source) in enumerate(rows):
        first = seen.setdefault((int(group), digest, source or ""), index)
        if first != index:
            dropped.append(index)
            kept.append(first)
    matched = table["key"].take(pa.array(kept, pa.int64())).to_pylist()
    indices = np.asarray(dropped, np.int64)
    return evidence(table, indices, "exact_duplicate", [name] * len(dropped), matched, np.zeros(len(dropped)))


def perceptual_duplicates(
    table: pa.Table, max_distance: int = 4, mirrored: bool = True, linkage: Linkage = "direct"
) -> pa.Table:
    """Rows whose perceptual hashes differ in at most `max_distance` bits, or do so from a mirror image's.

    Of edits source and target must both be near, in the same orientation, and the instruction the same; the distance
    is the larger one. Flat pictures have no hash (0) and equal nothing.
    """
    table = ranked(table)
    names = ("phash", "phash_mirrored", "source_phash", "source_phash_mirrored")
    every = np.stack([groups(table).astype(np.uint64), *(hashes(table, name) for name in names)], axis=1)
    rows = np.flatnonzero(every[:, 1])  # those that have a hash
    signatures, first, member_of = np.unique(every[rows], axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # signatures in the order of their best rows
    signatures, first = signatures[order], first[order]
    member_of = np.argsort(order)[member_of.reshape(-1)]
    direct = _near(signatures, 1, 3, max_distance)
    flipped = _near(signatures, 2, 4, max_distance) if mirrored else no_pairs()
    pairs = unique_pairs(
        np.concatenate([direct.left, np.minimum(flipped.left, flipped.right)]),
        np.concatenate([direct.right, np.maximum(flipped.left, flipped.right)]),
        np.concatenate([direct.distance, flipped.distance]),
    )
    match, distance = resolve(len(signatures), pairs, linkage)
    row_match, row_distance = np.full(len(every), -1), np.zeros(len(every))
    for index, row in enumerate(rows):
        signature = member_of[index]
        best = rows[first[signature]]
        if match[signature] >= 0 and (row == best or linkage == "direct"):
            row_match[row], row_distance[row] = rows[first[match[signature]]], distance[signature]
        elif row != best:  # the very same hashes as a better row
            row_match[row] = best
    dropped = np.flatnonzero(row_match >= 0)
    apart = np.bitwise_count(every[dropped] ^ every[row_match[dropped]])[:, [1, 3]].max(axis=1, initial=0)
    kinds = ["phash" if a == b else "phash_mirrored" for a, b in zip(apart, row_distance[dropped], strict=True)]
    matched = table["key"].take(pa.array(row_match[dropped])).to_pylist()
    return evidence(table, dropped, "perceptual_duplicate", kinds, matched, row_distance[dropped])


def embedding_duplicates(
    table: pa.Table,
    min_cosine: float = 0.97,
    linkage: Linkage = "direct",
    block: int = 2048,
    held: Iterable[pa.Table] = (),
) -> pa.Table:
    """Rows whose embeddings have a cosine of at least `min_cosine`; of edits the targets', with the same instruction.

    All pairs are compared, `block` x `block` at a time: quadratic time, but memory for the embeddings of the table, one
    block, and one part of `held`. Rows without an embedding take no part.

    Args:
        table: what is judged.
        min_cosine, linkage: as above.
        block: rows.
        held: samples that stay in any case, in parts of any size with the columns key, kind, text and embedding.

    Raises:
        ValueError: the table has no embedding column.
    """
    if EMBEDDING not in table.column_names:
        raise ValueError("embedding duplicates need an `embedding` column; run an embedder first")
    table = ranked(table)
    rows = np.flatnonzero(table[EMBEDDING].is_valid())
    names: dict[tuple[str, ...], int] = {}
    group, vectors = groups(table, names)[rows], _vectors(table, len(rows))
    nearest, near_key = _nearest(vectors, group, held, names, block)
    linked = np.flatnonzero(nearest >= min_cosine)  # each gets a node for what is held, before all rows
    found = [(np.arange(len(linked)), linked + len(linked), 1 - nearest[linked].astype(np.float64))]
    for low in range(0, len(rows), block):
        left = _unit(vectors[low : low + block])
        for other in range(0, low + 1, block):
            cosine = left @ _unit(vectors[other : other + block]).T
            same = group[low : low + block, None] == group[None, other : other + block]
            worse, better = np.nonzero((cosine >= min_cosine) & same)
            near = worse + low > better + other
            worse, better = worse[near], better[near]
            apart = 1 - cosine[worse, better].astype(np.float64)
            found.append((better + other + len(linked), worse + low + len(linked), apart))
    pairs = unique_pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    match, distance = resolve(len(linked) + len(rows), pairs, linkage)
    dropped = np.flatnonzero(match[len(linked) :] >= 0)
    match, distance = match[len(linked) :][dropped], distance[len(linked) :][dropped]
    keys = table["key"].take(pa.array(rows[np.maximum(match - len(linked), 0)])).to_pylist()
    matched = [
        near_key[linked[node]] if node < len(linked) else key for node, key in zip(match.tolist(), keys, strict=True)
    ]
    kinds = ["embedding"] * len(dropped)
    return evidence(table, rows[dropped], "embedding_duplicate", kinds, matched, distance.clip(0))


def _nearest(
    vectors: NDArray[np.float16],
    group: NDArray[np.int64],
    held: Iterable[pa.Table],
    names: dict[tuple[str, ...], int],
    block: int,
) -> tuple[NDArray[np.float32], list[str]]:
    """For each vector [N, D] the largest cosine with a held one of its group, -inf where there is none, and its key."""
    best, keys = np.full(len(vectors), -np.inf, np.float32), [""] * len(vectors)
    for part in held:
        part_group, part_keys = groups(part, names), part["key"].to_pylist()
        right = _unit(_vectors(part, len(part)))
        for low in range(0, len(vectors), block):
            cosine = _unit(vectors[low : low + block]) @ right.T
            cosine[group[low : low + block, None] != part_group[None]] = -np.inf
            column = cosine.argmax(axis=1)
            value = cosine[np.arange(len(cosine)), column]
            for row in np.flatnonzero(value > best[low : low + block]).tolist():
                best[low + row], keys[low + row] = value[row], part_keys[column[row]]
    return best, keys


def _vectors(table: pa.Table, num: int) -> NDArray[np.float16]:
    """[N, D] of the rows that have an embedding, of which there are `num`."""
    flat = table[EMBEDDING].combine_chunks().drop_null().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float16, copy=False).reshape(num, -1) if num else np.zeros((0, 1), np.float16)


def _unit(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    """float32 rows of unit length."""
    wide = vectors.astype(np.float32)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.float32(1e-12))
    return wide


def resolve(num: int, pairs: Pairs, linkage: Linkage) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which of `num` ranked items to drop for a better one (a smaller index).

    Args:
        num: number of items, best first.
        pairs: near ones, left < right.
        linkage: 'direct': an item goes if it is near a better one that stays, so that what is dropped always has a
            near one that is kept; 'chain': of each connected group only the best stays (union-find).

    Returns:
        match [num]: for a dropped item the nearest item that it was dropped for (with 'direct' a kept one, with
        'chain' the nearest of its group), else -1; and the distance [num].
    """
    match, distance = np.full(num, -1, np.int64), np.zeros(num)
    if linkage == "chain":
        best = _components(num, pairs)
        left, right = np.concatenate([pairs.left, pairs.right]), np.concatenate([pairs.right, pairs.left])
        both = np.concatenate([pairs.distance, pairs.distance])
        order = np.lexsort((left, both, right))
        item, start = np.unique(right[order], return_index=True)
        match[item], distance[item] = left[order][start], both[order][start]
        match[best == np.arange(num)] = -1
        distance[match < 0] = 0
        return match, distance
    order = np.lexsort((pairs.left, pairs.distance, pairs.right))
    for better, worse, apart in zip(
        pairs.left[order].tolist(), pairs.right[order].tolist(), pairs.distance[order].tolist(), strict=True
    ):  # ascending in `worse`, so whether `better` stays is already known
        if match[worse] < 0 and match[better] < 0:
            match[worse], distance[worse] = better, apart
    return match, distance


def _near(signatures: NDArray[np.uint64], column: int, source_column: int, max_distance: int) -> Pairs:
    """Pairs of signatures [S, 5] of one group: left's own hashes against those of right in the given columns."""
    group, target, source = signatures[:, 0], signatures[:, 1], signatures[:, 3]
    pairs = near_pairs(target, signatures[:, column], max_distance)
    apart = np.bitwise_count(source[pairs.left] ^ signatures[pairs.right, source_column])
    good = (apart <= max_distance) & (group[pairs.left] == group[pairs.right])
    good &= pairs.left < pairs.right if column == 1 else pairs.left != pairs.right
    return Pairs(pairs.left[good], pairs.right[good], np.maximum(pairs.distance, apart)[good])


def _components(num: int, pairs: Pairs) -> NDArray[np.int64]:
    """[num]: the smallest index of each item's connected group (union-find by minimum labels and pointer jumping)."""
    label = np.arange(num, dtype=np.int64)
    while True:
        low = np.minimum(label[pairs.left], label[pairs.right])
        new = label.copy()
        np.minimum.at(new, label[pairs.left], low)
        np.minimum.at(new, label[pairs.right], low)
        new = new[new]
        if np.array_equal(new, label):
            return label
        label = new
