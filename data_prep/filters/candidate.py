"""`Candidate`: a decoded and measured record, which filters judge; and `apply`, which runs row filters."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_prep.record import Problem, Record


@dataclass(frozen=True, eq=False)
class Candidate:
    """One row, decoded: what row filters and scorers see.

    Pictures are upright sRGB at the geometry that is stored; an edit's target, source and mask share it.
    """

    record: Record
    source_name: str  # of the source in the configuration; rows are unique within it
    key: str  # of the sample to be
    image: NDArray[np.uint8]  # [H, W, 3]; of an edit the target
    width: int  # of the picture as it came, upright, px; of an edit the smaller of the two pictures
    height: int
    sha256: str  # of the picture's bytes as they came
    pixel_sha256: str  # of shape and pixels: see `hash_pixels`
    phash: int  # perceptual, of `image` and of its mirror image; 0 means flat, and equals nothing
    phash_mirrored: int
    source: NDArray[np.uint8] | None = None  # [H, W, 3]; of an edit: what is edited
    mask: NDArray[np.uint8] | None = None  # [H, W], white where the edit may change
    source_sha256: str | None = None
    source_pixel_sha256: str | None = None
    source_phash: int | None = None
    source_phash_mirrored: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)  # of scorers, and those that came with the row

    @property
    def row(self) -> str:
        """The row's name in its source, for problems."""
        return self.record.row

    def problem(self, reason: str, detail: str) -> Problem:
        """A problem of this row."""
        return Problem(self.record.row, reason, detail)


def hash_pixels(pixels: NDArray[np.uint8]) -> str:
    """sha256 of a picture's shape and pixels, in hex."""
    shape = "x".join(str(side) for side in pixels.shape)
    return hashlib.sha256(shape.encode() + b":" + np.ascontiguousarray(pixels).tobytes()).hexdigest()


class RowFilter(Protocol):
    """A rule on single rows. It must not raise for any picture or text, and keeps nothing between batches."""

    @property
    def name(self) -> str:
        """Short word that counts are kept by."""
        ...

    def judge(self, batch: Sequence[Candidate]) -> list[Problem | None]:
        """One verdict per candidate, in order; None keeps it."""
        ...


@dataclass
class Tally:
    """What filters did: rows in, rows kept, and rows rejected by (filter, reason)."""

    num_inputs: int = 0
    num_kept: int = 0
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)

    def by_reason(self) -> dict[str, int]:
        """Rejected rows per reason, all filters together."""
        reasons: Counter[str] = Counter()
        for (_, reason), count in self.rejected.items():
            reasons[reason] += count
        return dict(sorted(reasons.items()))


Judged = tuple[Candidate, Problem | None]


def apply(
    filters: Sequence[RowFilter], candidates: Iterable[Candidate], tally: Tally | None = None, batch_size: int = 32
) -> Iterator[Judged]:
    """Run row filters in order over a stream; every candidate comes out once, in input order, with its verdict.

    The first filter that objects decides, and later ones do not see the row. At most `batch_size` candidates are held.
    """
    tally = Tally() if tally is None else tally
    stream = iter(candidates)
    while batch := list(islice(stream, batch_size)):
        verdicts = _judge(filters, batch, tally)
        tally.num_inputs += len(batch)
        tally.num_kept += verdicts.count(None)
        yield from zip(batch, verdicts, strict=True)


def _judge(filters: Sequence[RowFilter], batch: Sequence[Candidate], tally: Tally) -> list[Problem | None]:
    verdicts: list[Problem | None] = [None] * len(batch)
    for rule in filters:
        left = [index for index, verdict in enumerate(verdicts) if verdict is None]
        if not left:
            break
        for index, problem in zip(left, rule.judge([batch[index] for index in left]), strict=True):
            if problem is not None:
                verdicts[index] = problem
                tally.rejected[rule.name, problem.reason] += 1
    return verdicts
