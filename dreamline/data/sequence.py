"""`SampleSequence`: the samples of one data set as an endless sequence, addressed by position."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dreamline import storage
from dreamline.config import ConfigError
from dreamline.data.order import FullOrder, WindowedOrder
from dreamline.data.sample import Sample
from dreamline.data.shards import ShardReader


class SampleSequence:
    """The samples of one data set, each once per pass, in another order on every pass.

    Args:
        reader: of the data set.
        window: shards of a window, for data sets on object storage; None: any sample may follow any other.

    Raises:
        ConfigError: there are no samples, or three windows do not fit into the reader's cache.
    """

    def __init__(self, reader: ShardReader, seed: int, window: int | None = None) -> None:
        index = reader.index
        if not len(index):
            raise ConfigError(f"{index.folder}: holds no samples")
        self.reader, self.seed, self.window = reader, seed, window
        sizes = [shard.samples for shard in index.shards]
        self.order: FullOrder | WindowedOrder = FullOrder(len(index), index.fingerprint, seed)
        if window is not None:
            self.order = WindowedOrder(sizes, window, index.fingerprint, seed)
            self._check_room(window)
        self._asked: list[int] = []  # shards that were asked for ahead of their use
        self._pool = ThreadPoolExecutor(1, "hold")

    def __reduce__(self) -> tuple[Any, ...]:
        return SampleSequence, (self.reader, self.seed, self.window)

    def _check_room(self, window: int) -> None:
        """A window that makes way for the next one would be fetched anew for every sample."""
        index, cache = self.reader.index, self.reader.cache
        needed = sum(sorted(shard.size for shard in index.shards)[-3 * window :])
        if storage.is_remote(index.folder) and cache is not None and cache.size < needed:
            raise ConfigError(
                f"{index.folder}: three windows of {window} shards take {needed} bytes, cache.size is {cache.size}; "
                "raise it, or make the windows smaller"
            )

    @property
    def identity(self) -> Mapping[str, Any]:
        """Fingerprint, layout of shards, seed and kind of order."""
        index = self.reader.index
        return {
            "fingerprint": index.fingerprint,
            "layout": index.layout,
            "seed": self.seed,
            "order": self.order.name,
        }

    def batch(self, positions: range) -> list[Sample]:
        """The samples at these positions; the shards of the next window are fetched meanwhile."""
        ordinals = np.asarray(positions, np.int64)
        self._hold(self.order.shards(ordinals).tolist())
        return self.reader.read(self.order(ordinals))

    def close(self) -> None:
        """Wait for what is being got ready."""
        self._pool.shutdown()

    def _hold(self, shards: list[int]) -> None:
        """Get shards ready in the background; what is wrong with one is raised when it is read."""
        if shards != self._asked:
            new = [shard for shard in shards if shard not in self._asked]
            self._asked = shards
            self._pool.submit(self._hold_each, new)

    def _hold_each(self, shards: list[int]) -> None:
        for shard in shards:
            if not threading.main_thread().is_alive():  # the process ends, and waits for no more than one shard
                return
            self.reader.hold([shard])
