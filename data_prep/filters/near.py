"""All pairs of 64-bit hashes within a Hamming distance: exact, and far below quadratic cost.

The 64 bits are cut into distance + k blocks. Two hashes within the distance differ in at most that many blocks, so
they agree in some k of them: for each choice of k blocks, rows that agree there are compared (Manku et al. 2007,
"Detecting near-duplicates for web crawling", with sorting in place of stored tables).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 22  # candidate pairs compared at a time
_SORT_COST = 12.0  # of sorting and looking up a row, in comparisons of two hashes

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Pairs:
    """Indices into the two sides, [P] each, and their distance; sorted, every pair once."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    distance: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.left)


def near_pairs(left: Hashes, right: Hashes, distance: int) -> Pairs:
    """All (i, j) with hamming(left[i], right[j]) <= distance, exactly.

    Args:
        left, right: hashes [N] and [M], uint64.
        distance: bits, 0 to 63.
    """
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    for mask in masks(distance, len(left), len(right)):
        order = np.argsort(right & mask, kind="stable")
        keys = (right & mask)[order]
        wanted = left & mask
        start = np.searchsorted(keys, wanted, side="left")
        count = np.searchsorted(keys, wanted, side="right") - start
        for rows, positions in _expand(start, count):
            columns = order[positions]
            bits = np.bitwise_count(left[rows] ^ right[columns])
            near = bits <= distance
            found.append((rows[near], columns[near], bits[near].astype(np.float64)))
    return unique_pairs(*(np.concatenate(parts) for parts in zip(*found, strict=True))) if found else no_pairs()


def masks(distance: int, num_left: int, num_right: int) -> list[np.uint64]:
    """Which bits must agree, one mask per table; k is chosen for the least work at these sizes."""
    best: tuple[float, list[np.uint64]] = (math.inf, [])
    for intact in range(5):
        choices = _choices(distance, intact)
        compared = sum(2.0 ** -int(np.bitwise_count(mask)) for mask in choices) * num_left * num_right
        work = compared + len(choices) * _SORT_COST * (num_left + num_right)
        if work < best[0]:
            best = (work, choices)
    return best[1]


def no_pairs() -> Pairs:
    """None at all."""
    return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def unique_pairs(left: NDArray[np.int64], right: NDArray[np.int64], distance: NDArray[np.float64]) -> Pairs:
    """Each (left, right) once, with its least distance, sorted."""
    order = np.lexsort((distance, right, left))
    left, right, distance = left[order], right[order], distance[order]
    first = np.ones(len(left), bool)
    first[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return Pairs(left[first], right[first], distance[first])


def _choices(distance: int, intact: int) -> list[np.uint64]:
    """Masks of `intact` blocks out of distance + intact equal ones; no blocks means that every pair is compared."""
    num_blocks = distance + intact
    if intact == 0 or num_blocks > 64:
        return [np.uint64(0)]
    edges = [64 * block // num_blocks for block in range(num_blocks + 1)]
    blocks = [((1 << high) - 1) ^ ((1 << low) - 1) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(blocks, intact)]


def _expand(
    start: NDArray[np.int64], count: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(row, position) for each position in [start, start + count) of each row, about `_CHUNK` pairs at a time."""
    rows = np.flatnonzero(count)
    ends = np.cumsum(count[rows])
    low = 0
    while low < len(rows):
        before = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, before + _CHUNK, side="right")))
        part = rows[low:high]
        num = count[part]
        offset = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num, num)
        yield np.repeat(part, num), np.repeat(start[part], num) + offset
        low = high
