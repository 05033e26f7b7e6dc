"""The order of samples as pure functions of a position: nothing to store, nothing to replay after a restart."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

ROUNDS = 6
MAX_PERIOD = 100_000


class Permutation:
    """A pseudo-random bijection of 0..size-1 without a table.

    A Feistel network over mixed radices a * b >= size (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"),
    with cycle walking over the fewer than a values beyond `size`.
    """

    def __init__(self, size: int, key: str) -> None:
        if size < 1:
            raise ValueError(f"a permutation needs at least one element, got {size}")
        self.size = size
        self._a = math.isqrt(size - 1) + 1
        self._b = -(-size // self._a)
        words = hashlib.shake_128(key.encode()).digest(8 * ROUNDS)
        self._keys: Words = np.frombuffer(words, dtype="<u8").astype(np.uint64)

    def __call__(self, positions: Indices) -> Indices:
        """Image of each position in [0, size)."""
        values = self._network(positions.astype(np.uint64))
        outside = values >= self.size
        while outside.any():
            values[outside] = self._network(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _network(self, values: Words) -> Words:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = values // b, values % b
        for i in range(0, ROUNDS, 2):
            left = (left + _mix(right, self._keys[i]) % a) % a
            right = (right + _mix(left, self._keys[i + 1]) % b) % b
        return left * b + right


def _mix(values: Words, key: np.uint64) -> Words:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    z = values ^ key
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=256)
def epoch_permutation(size: int, fingerprint: str, seed: int, epoch: int) -> Permutation:
    """The order of one pass over a data set."""
    return Permutation(size, f"{fingerprint}:{seed}:{epoch}")


def shuffled(ordinals: Indices, size: int, fingerprint: str, seed: int) -> Indices:
    """Sample number of each draw 0, 1, ... from a data set: every pass of `size` draws holds each sample once."""
    rows = np.empty_like(ordinals)
    epochs, positions = np.divmod(ordinals, size)
    for epoch in np.unique(epochs):
        where = epochs == epoch
        rows[where] = epoch_permutation(size, fingerprint, seed, int(epoch))(positions[where])
    return rows


class FullOrder:
    """Every draw anywhere in the data set: for local disks."""

    def __init__(self, size: int, fingerprint: str, seed: int) -> None:
        self.name = "anywhere"
        self._arguments = (size, fingerprint, seed)

    def __call__(self, ordinals: Indices) -> Indices:
        """Row of each draw 0, 1, ...; every pass holds each row once."""
        return shuffled(ordinals, *self._arguments)

    def shards(self, ordinals: Indices) -> Indices:
        """Shards worth holding for these draws: none in particular."""
        return np.zeros(0, np.int64)


class WindowedOrder:
    """Every draw within a window of a few shards: for object storage.

    On each pass the shards are permuted and taken `width` at a time; the samples of such a window are permuted. Tables
    are as long as the list of shards, never as the list of samples.

    Args:
        sizes: samples of each shard, whose rows follow each other.
        width: shards of a window.
    """

    def __init__(self, sizes: Sequence[int], width: int, fingerprint: str, seed: int) -> None:
        if width < 1 or min(sizes, default=0) < 0 or not sum(sizes):
            raise ValueError(f"windows need a width of at least 1 and shards with samples, got {width} and {sizes}")
        self.name = f"windows of {width} shards"
        every = np.array(sizes, np.int64)
        self._shards = np.flatnonzero(every)  # empty ones take no part
        self._sizes = every[self._shards]
        self._first = np.cumsum(self._sizes) - self._sizes
        self._size = int(self._sizes.sum())
        self._width, self._fingerprint, self._seed = width, fingerprint, seed
        self._passes: dict[int, tuple[Indices, Indices]] = {}

    def __call__(self, ordinals: Indices) -> Indices:
        """Row of each draw 0, 1, ...; every pass holds each row once."""
        rows = np.empty_like(ordinals)
        epochs, positions = np.divmod(ordinals, self._size)
        for epoch in np.unique(epochs).tolist():
            where = np.flatnonzero(epochs == epoch)
            rows[where] = self._rows(epoch, positions[where])
        return rows

    def shards(self, ordinals: Indices) -> Indices:
        """Shards of the windows that these draws lie in, then of the next window; the soonest needed first."""
        found: list[int] = []
        epochs, positions = np.divmod(ordinals, self._size)
        for epoch in np.unique(epochs).tolist():
            order, bounds = self._pass(epoch)
            windows = np.unique(self._windows(bounds, positions[epochs == epoch]))
            end = (int(windows[-1]) + 2) * self._width
            found += order[windows[0] * self._width : end].tolist()
            if end - self._width >= len(order):  # the next window is that of the next pass
                found += self._pass(epoch + 1)[0][: self._width].tolist()
        return self._shards[list(dict.fromkeys(found))]

    def _rows(self, epoch: int, positions: Indices) -> Indices:
        order, bounds = self._pass(epoch)
        windows = self._windows(bounds, positions)
        places = np.empty_like(positions)  # in the permuted sequence of shards
        for window in np.unique(windows).tolist():
            where = windows == window
            start = int(bounds[window * self._width])
            end = int(bounds[min((window + 1) * self._width, len(order))])
            permuted = epoch_permutation(end - start, f"{self._fingerprint}:window:{window}", self._seed, epoch)
            places[where] = start + permuted(positions[where] - start)
        shards = np.searchsorted(bounds, places, side="right") - 1
        return self._first[order[shards]] + places - bounds[shards]

    def _windows(self, bounds: Indices, positions: Indices) -> Indices:
        """Number of the window of each position of a pass."""
        return np.searchsorted(bounds[:: self._width], positions, side="right").astype(np.int64) - 1

    def _pass(self, epoch: int) -> tuple[Indices, Indices]:
        """The shards of a pass in their order, and the position that each begins at, then the end."""
        found = self._passes.get(epoch)
        if found is None:
            if len(self._passes) > 3:
                self._passes.clear()
            permutation = Permutation(len(self._sizes), f"{self._fingerprint}:{self._seed}:{epoch}:shards")
            order = permutation(np.arange(len(self._sizes)))
            found = self._passes[epoch] = order, np.concatenate([[0], np.cumsum(self._sizes[order])])
        return found  # not what is in the table now: another thread may have cleared it


class Interleave:
    """An endless sequence over components in exact proportion to their weights.

    After any n positions component i has come |count - n * share| < 1 times. The sequence repeats after a period, so
    any position is found at once.

    Raises:
        ValueError: a weight is not positive, or the ratio of weights is not simple.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        wholes = whole_ratio(weights)
        self.period = sum(wholes)
        if self.period > MAX_PERIOD:
            raise ValueError(
                f"the ratio of the weights {list(weights)} repeats after {self.period} samples only; round them"
            )
        self.components = _schedule(wholes)
        self._counts = np.array(wholes, dtype=np.int64)
        self._ranks = np.zeros(self.period, dtype=np.int64)
        for i in range(len(wholes)):
            where = self.components == i
            self._ranks[where] = np.arange(int(where.sum()))

    def __call__(self, positions: Indices) -> tuple[Indices, Indices]:
        """Component of each position, and how many positions before it had the same component."""
        cycles, places = np.divmod(positions, self.period)
        components = self.components[places]
        return components, cycles * self._counts[components] + self._ranks[places]


def whole_ratio(weights: Sequence[float]) -> list[int]:
    """The smallest whole numbers in the same ratio, taking each weight as the decimal that it is written as."""
    if not weights or min(weights) <= 0 or not all(map(math.isfinite, weights)):
        raise ValueError(f"weights must be positive numbers, got {list(weights)}; leave a component out instead")
    exact = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(weight.denominator for weight in exact))
    wholes = [int(weight * scale) for weight in exact]
    divisor = math.gcd(*wholes)
    return [whole // divisor for whole in wholes]


def _schedule(wholes: Sequence[int]) -> Indices:
    """One period by the quota method (Balinski & Young 1975): the earliest deadline not ahead of its share."""
    period = sum(wholes)
    counts = [0] * len(wholes)
    order = np.empty(period, dtype=np.int64)
    for n in range(period):
        open_ = [i for i, whole in enumerate(wholes) if counts[i] * period < (n + 1) * whole]
        chosen = min(open_, key=lambda i: (Fraction(counts[i] + 1, wholes[i]), i))
        counts[chosen] += 1
        order[n] = chosen
    return order
