"""Reading samples by row through an index: shards and their copies by offset, remote ones also by ranged requests."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from dreamline import storage
from dreamline.config import ConfigError
from dreamline.data.index import SampleIndex
from dreamline.data.order import Indices
from dreamline.data.sample import Sample
from dreamline.data.shard_cache import CacheConfig, LocalShards

WHOLE = 32 * 1024  # bytes; up to here the members of a sample are read at once and cut, beyond one by one
REQUEST = 8 * 2**20  # the same where each read is a request
REQUESTS = 8  # under way at a time

Members = dict[str, bytes]


class Spans(NamedTuple):
    """Where some samples lie: per sample, then per member of all of them."""

    shards: list[int]
    layouts: list[int]
    starts: list[int]  # byte in the shard at which a sample begins
    sizes: list[int]  # bytes from there to its end
    begins: list[int]  # where a member begins and ends, from the sample's start
    ends: list[int]


class ShardReader:
    """Samples of a data set by row. Threads may share it; other processes get one of their own by pickling.

    Args:
        index: of the data set.
        cache: where marks of verified shards lie, and copies of remote ones. Without one, remote samples are read by
            ranged requests, for rare access, and marks lie in the default folder.
        verify: hash each shard before its first use on this machine; of ranged requests, each member with a known hash.

    Reading raises ConfigError where a shard is missing or damaged; it names the shard and says what to do.
    """

    def __init__(self, index: SampleIndex, cache: CacheConfig | None = None, verify: bool = True) -> None:
        self.index, self.cache, self.verify = index, cache, verify
        self.ranged = storage.is_remote(index.folder) and cache is None
        self._shards = Descriptors(LocalShards(index, cache or CacheConfig(), verify))

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardReader, (self.index, self.cache, self.verify)

    def __len__(self) -> int:
        return len(self.index)

    def read(self, rows: Indices | Sequence[int]) -> list[Sample]:
        """The samples of some rows, in that order.

        Raises:
            ValueError: a record has not the members of a sample.
        """
        wanted = np.asarray(rows, np.int64).tolist()
        return [
            self.index.sample(self.index.key(row), found)
            for row, found in zip(wanted, self.members(wanted), strict=True)
        ]

    def members(self, rows: Indices | Sequence[int]) -> list[Members]:
        """Content by member name of some rows, in that order.

        Raises:
            IndexError: no such row.
        """
        wanted = np.asarray(rows, np.int64)
        if not len(wanted):
            return []
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise IndexError(f"{self.index.folder}: has the rows 0 to {len(self) - 1}, asked for {wanted.tolist()}")
        return self._request(wanted) if self.ranged else self._read(wanted)

    def hold(self, shards: Sequence[int]) -> None:
        """Get shards ready, copied and verified, where reading them needs it."""
        for number in () if self.ranged else shards:
            self._shards[number]

    def _read(self, rows: Indices) -> list[Members]:
        spans, found, pread, position = self._spans(rows), [], os.pread, 0
        for shard, layout, start, size in zip(*spans[:4], strict=True):
            names = self._names[layout]
            begins, ends = (values[position : position + len(names)] for values in spans[4:])
            position += len(names)
            opened = self._shards[shard]  # not its number alone: another thread may close what nobody refers to
            if size <= WHOLE:
                block = pread(opened.number, size, start)
                found.append(_cut(block, names, begins, ends))
                complete = len(block) == size
            else:
                places = zip(names, begins, ends, strict=True)
                found.append({name: pread(opened.number, end - begin, start + begin) for name, begin, end in places})
                complete = sum(map(len, found[-1].values())) == sum(ends) - sum(begins)
            if not complete:
                raise ConfigError(f"{self._path(shard)}: ends before byte {start + size}; {self.index.cure}")
        return found

    def _request(self, rows: Indices) -> list[Members]:
        """Read by ranged requests, several at a time, each whole sample by one unless its members lie far apart."""
        spans, tasks, position = self._spans(rows), [], 0
        for row, shard, layout, start, size in zip(rows.tolist(), *spans[:4], strict=True):
            names = self._names[layout]
            begins, ends = (values[position : position + len(names)] for values in spans[4:])
            position += len(names)
            tasks.append((row, shard, names, start, size, begins, ends))
        with ThreadPoolExecutor(REQUESTS) as pool:
            return list(pool.map(lambda task: self._request_one(*task), tasks))

    def _request_one(
        self,
        row: int,
        shard: int,
        names: Sequence[str],
        start: int,
        size: int,
        begins: Sequence[int],
        ends: Sequence[int],
    ) -> Members:
        url = self._path(shard)
        try:
            if size <= REQUEST + sum(ends) - sum(begins):
                members = _cut(storage.read_range(url, start, size), names, begins, ends)
            else:
                places = zip(names, begins, ends, strict=True)
                members = {name: storage.read_range(url, start + begin, end - begin) for name, begin, end in places}
        except FileNotFoundError:
            raise ConfigError(f"{url}: missing; {self.index.cure}") from None
        hashes = self.index.member_hashes(row) if self.verify else [None] * len(names)
        for (name, content), expected, begin, end in zip(members.items(), hashes, begins, ends, strict=True):
            damaged = expected is not None and hashlib.sha256(content).hexdigest() != expected
            if len(content) != end - begin or damaged:
                key = self.index.key(row)
                raise ConfigError(f"{url}: sample {key}, member {name} is damaged; {self.index.cure}")
        return members

    def _path(self, shard: int) -> str:
        return storage.join(self.index.folder, self.index.shards[shard].name)

    @cached_property
    def _names(self) -> list[tuple[str, ...]]:
        return [layout.names for layout in self.index.places.layouts]

    def _spans(self, rows: Indices) -> Spans:
        places = self.index.places
        first = places.first[rows]
        counts = places.first[rows + 1] - first
        starts = np.cumsum(counts) - counts
        members = np.repeat(first - starts, counts) + np.arange(counts.sum())
        begin = places.offset[members]
        end = begin + places.size[members]
        low = np.minimum.reduceat(begin, starts)
        size = np.maximum.reduceat(end, starts) - low
        base = np.repeat(low, counts)
        shards, layouts = self.index.shard_of(rows), places.layout[rows]
        return Spans(*(values.tolist() for values in (shards, layouts, low, size, begin - base, end - base)))


def _cut(block: bytes, names: Sequence[str], begins: Sequence[int], ends: Sequence[int]) -> Members:
    return {name: block[begin:end] for name, begin, end in zip(names, begins, ends, strict=True)}


class Descriptor:
    """An open file, closed when nobody refers to it any more."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Descriptors:
    """Shards that are held open, those opened last up to a bound; a thread that reads one keeps it open meanwhile."""

    def __init__(self, shards: LocalShards) -> None:
        self._shards = shards
        self._lock = threading.Lock()
        self._open: dict[int, Descriptor] = {}

    def __getitem__(self, shard: int) -> Descriptor:
        found = self._open.get(shard)
        return self._add(shard) if found is None else found

    def _add(self, shard: int) -> Descriptor:
        opened = Descriptor(self._shards.open(shard))
        with self._lock:
            found = self._open.setdefault(shard, opened)
            while len(self._open) > self._shards.max_open:
                self._open.pop(next(iter(self._open)))
        return found
