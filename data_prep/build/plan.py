"""The plan: from the indexes of all spans to a list of shards. Sorted by key, so nothing depends on who came first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_prep.build.config import ShardConfig
from data_prep.build.pack import KEPT, NEGATIVE, index_name, pack_of, read_index
from data_prep.build.store import Store
from dreamline.data.sample import Kind

DUPLICATE = "duplicate_key"
COLUMNS = ("status", "key", "kind", "bucket", "offset", "size", "head", "tar_size")

Ints = NDArray[np.int64]
Keys = NDArray[np.bytes_]  # S32


@dataclass(frozen=True)
class Group:
    """What one shard may hold together."""

    kind: Kind
    negative: bool
    bucket: str | None

    def stem(self, name: str, number: int) -> str:
        """Name of a shard without its content hash; negatives lie in a folder of their own."""
        words = [name, self.kind, *([self.bucket] if self.bucket else []), f"{number:06d}"]
        return ("negatives/" if self.negative else "") + "-".join(words)


@dataclass(frozen=True)
class Staged:
    """All samples that have been staged, one row each, in the order of sources, spans and rows."""

    spans: Sequence[str]  # names
    packs: Sequence[str]  # of the spans
    groups: Sequence[Group]
    key: Keys
    group: Ints
    span: Ints  # which
    row: Ints  # in the index of the span
    offset: Ints  # in the pack of the span, as the next two
    size: Ints
    head: Ints
    tar_size: Ints

    def __len__(self) -> int:
        return len(self.key)

    @property
    def negative(self) -> NDArray[np.bool_]:
        """True for rejected edits that are kept as negatives."""
        flags = np.asarray([group.negative for group in self.groups], np.bool_)
        return flags[self.group] if len(self) else np.zeros(0, np.bool_)

    def by_span(self, samples: Ints) -> Iterator[tuple[int, Ints]]:
        """Ascending samples by their span."""
        for numbers in np.split(samples, np.flatnonzero(np.diff(self.span[samples])) + 1):
            if len(numbers):
                yield int(self.span[numbers[0]]), numbers

    def where(self, samples: Ints) -> Iterator[tuple[str, int]]:
        """Span and row in its index."""
        for sample in samples.tolist():
            yield self.spans[int(self.span[sample])], int(self.row[sample])


@dataclass(frozen=True)
class ShardPlan:
    """What goes into one shard, in order."""

    number: int
    stem: str
    group: Group
    packs: Sequence[str]  # those that samples lie in
    pack: Ints  # index into them, one per sample, as all below
    offset: Ints
    size: Ints
    head: Ints
    weight: NDArray[np.float64] | None = None  # sampling weights, where a rule over the set gives them

    def __len__(self) -> int:
        return len(self.pack)


@dataclass
class Refusals:
    """Samples that rules over the whole set reject: reason and detail by number in `Staged`."""

    by_sample: dict[int, tuple[str, str]] = field(default_factory=dict)

    def add(self, sample: int, reason: str, detail: str) -> None:
        """Reject a sample, unless an earlier rule has."""
        self.by_sample.setdefault(sample, (reason, detail))

    def keep(self, total: int) -> NDArray[np.bool_]:
        """True for samples that no rule rejects."""
        kept = np.ones(total, np.bool_)
        kept[list(self.by_sample)] = False
        return kept


def read_staged(store: Store, prefix: str, spans: Sequence[str]) -> Staged:
    """Read what the plan needs of every index: some 80 bytes per sample, and never a picture.

    Raises:
        FileNotFoundError: a span is not done.
    """
    groups: dict[Group, int] = {}
    packs: list[str] = []
    columns: dict[str, list[NDArray[np.generic]]] = {}
    for number, span in enumerate(spans):
        table = read_index(store, index_name(prefix, span), COLUMNS)
        packs.append(pack_of(table))
        status = table.column("status").to_pylist()
        rows = np.asarray([i for i, value in enumerate(status) if value in (KEPT, NEGATIVE)], np.int64)
        chosen = table.take(rows)
        group = [
            groups.setdefault(Group(kind, word == NEGATIVE, bucket), len(groups))
            for kind, word, bucket in zip(
                *(chosen.column(name).to_pylist() for name in ("kind", "status", "bucket")), strict=True
            )
        ]
        part: dict[str, NDArray[np.generic]] = {
            "key": np.asarray(chosen.column("key").to_pylist(), "S32"),
            "group": np.asarray(group, np.int64),
            "span": np.full(len(rows), number, np.int64),
            "row": rows,
            **{name: chosen.column(name).to_numpy().astype(np.int64) for name in COLUMNS[4:]},
        }
        for name, values in part.items():
            columns.setdefault(name, []).append(values)
    merged = {name: np.concatenate(values) for name, values in columns.items()}
    return Staged(list(spans), packs, list(groups), **merged)


def reject_repeated_keys(staged: Staged, refusals: Refusals) -> None:
    """Of samples with one key the first stays, a good one before a negative."""
    negative = np.asarray([group.negative for group in staged.groups], np.bool_)
    order = np.lexsort((negative[staged.group], staged.key)) if len(staged) else np.zeros(0, np.int64)
    keys = staged.key[order]
    again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    firsts = order[starts[np.searchsorted(starts, again, side="right") - 1]]
    for sample, first in zip(order[again].tolist(), firsts.tolist(), strict=True):
        span, row = next(staged.where(np.asarray([first])))
        refusals.add(sample, DUPLICATE, f"the same as row {row} of span {span}, sample {staged.key[first].decode()}")


def plan_shards(
    staged: Staged,
    kept: NDArray[np.bool_],
    config: ShardConfig,
    name: str,
    numbers: dict[Group, int],
    weights: NDArray[np.float64] | None = None,
) -> list[ShardPlan]:
    """Sort by group and key, and cut where a shard is full.

    Args:
        staged: all samples.
        kept: which of them are written.
        config: size of shards.
        name: first part of the names.
        numbers: the next free number per group; counted up.
        weights: sampling weight per sample, if there are any.
    """
    names = [(group.negative, group.kind, group.bucket or "") for group in staged.groups]
    rank = np.argsort(np.asarray(sorted(range(len(names)), key=names.__getitem__), np.int64))
    order = np.lexsort((staged.key, rank[staged.group])) if len(staged) else np.zeros(0, np.int64)
    order = order[kept[order]]
    plans: list[ShardPlan] = []
    for samples in _cut(order, staged, config):
        group = staged.groups[int(staged.group[samples[0]])]
        number = numbers.get(group, 0)
        numbers[group] = number + 1
        spans, pack = np.unique(staged.span[samples], return_inverse=True)
        packs = [staged.packs[span] for span in spans.tolist()]
        places = (staged.offset[samples], staged.size[samples], staged.head[samples])
        weight = None if weights is None else weights[samples]
        plans.append(ShardPlan(len(plans), group.stem(name, number), group, packs, pack, *places, weight))
    return plans


def _cut(order: Ints, staged: Staged, config: ShardConfig) -> Iterator[Ints]:
    """Runs of one group that are within the limits; a single sample may exceed them."""
    start, size = 0, 0
    for place, sample in enumerate(order.tolist()):
        grown = size + int(staged.tar_size[sample])
        other = place > start and staged.group[sample] != staged.group[order[start]]
        if place > start and (other or grown > config.max_bytes or place - start >= config.max_samples):
            yield order[start:place]
            start, grown = place, int(staged.tar_size[sample])
        size = grown
    if start < len(order):
        yield order[start:]
