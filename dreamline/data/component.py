"""One data set of a mixture: which of its samples take part, and in which order those of each bucket come."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dreamline.config import ConfigError
from dreamline.data.features import Bucket, Features
from dreamline.data.order import Indices, shuffled
from dreamline.data.selection import select_rows


@dataclass(frozen=True)
class Cell:
    """The samples of a component in one bucket, as an endless sequence of draws."""

    size: int
    order_key: str
    seed: int
    rows: npt.NDArray[np.integer] | None  # which ones of the data set; None: all of them

    def draw(self, numbers: Indices) -> Indices:
        """Row of each draw 0, 1, ...: every `size` draws hold each sample once, in another order each time."""
        places = shuffled(numbers, self.size, self.order_key, self.seed)
        return places if self.rows is None else self.rows[places].astype(np.int64)


class Component:
    """A source of samples with its weight, and perhaps a filter.

    Attributes:
        rows: the rows that the filter keeps, ascending; None without a filter.
        selection: digest of the rows; None without a filter.

    Raises:
        ConfigError: the filter is wrong, or keeps nothing.
        ValueError: the source is empty.
    """

    def __init__(self, features: Features, weight: float, text: str | None) -> None:
        self.features, self.weight, self.filter = features, weight, text
        if not len(features):
            raise ValueError(f"{features.name}: holds no samples; leave it out of the mixture")
        self.rows = None if text is None else _select(features, text)
        self.selection = None if self.rows is None else _digest(self.rows)
        self._numbers = features.bucket if self.rows is None else features.bucket[self.rows]  # bucket of each row

    def __len__(self) -> int:
        """Number of samples that take part."""
        return len(self._numbers)

    def buckets(self) -> list[Bucket]:
        """Buckets that samples are in."""
        return [self.features.buckets[number] for number in np.unique(self._numbers)]

    def cells(self, buckets: Sequence[Bucket], seed: int) -> dict[int, Cell]:
        """The cells that hold samples, by place in `buckets`, those of the whole mixture.

        With a single one the order is that of the whole data set, which it had before there were buckets.
        """
        cells = {}
        for bucket in self.buckets():
            rows, key = self.rows, self.features.order_key
            if len(buckets) > 1:
                key = f"{key}:{bucket.width}x{bucket.height}"
                inside = np.flatnonzero(self._numbers == self.features.buckets.index(bucket))
                rows = inside if rows is None else rows[inside]
            size = len(self) if rows is None else len(rows)
            cells[buckets.index(bucket)] = Cell(size, key, seed, None if rows is None else _compact(rows))
        return cells


def _select(features: Features, text: str) -> Indices:
    try:
        rows = select_rows(text, features)
    except ConfigError as error:
        raise ConfigError(f"{features.name}: {error}") from None
    if not len(rows):
        raise ConfigError(f"{features.name}: filter {text!r} keeps none of {len(features)} samples; widen it")
    return rows


def _digest(rows: Indices) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:12]


def _compact(rows: Indices) -> npt.NDArray[np.integer]:
    """The same numbers in 4 bytes each, where they fit."""
    return rows.astype(np.int32) if rows.max() < 2**31 else rows
