"""The numbers of an increment: every input counted once, and histograms of what came and what stayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.build.pack import IGNORED, KEPT, index_name, missing_of, read_index
from data_prep.build.plan import Refusals, Staged
from data_prep.build.store import Store

LARGEST = 100  # values listed per histogram; the rest are counted together
OTHER = "(other)"
UNSTATED = "(not stated)"
AUGMENTED = "augmented"  # histogram of kept ones by how they were made
MISSING = "missing scores"  # histogram by scorer and reason
SIDES = (64, 128, 256, 512, 768, 1024, 1536, 2048, 4096)  # px, bounds of the resolution classes
COLUMNS = ("status", "reason", "source", "kind", "licence", "bucket", "edit_type", "width", "height")


@dataclass(frozen=True)
class Counts:
    """Counts of one increment."""

    num_inputs: int
    num_ignored: int
    rejected: dict[str, int]
    histograms: dict[str, dict[str, int]]


def count_inputs(store: Store, prefix: str, staged: Staged, refusals: Refusals) -> Counts:
    """Count the inputs of all spans, in a stream."""
    late = _late(staged, refusals)
    num_inputs = num_ignored = 0
    rejected: Counter[str] = Counter()
    found: dict[str, Counter[str]] = {}
    for span in staged.spans:
        table = read_index(store, index_name(prefix, span), COLUMNS)
        columns = [table.column(name).to_pylist() for name in COLUMNS]
        if missing := missing_of(table):
            found.setdefault(MISSING, Counter()).update(missing)
        for number, (status, reason, *rest) in enumerate(zip(*columns, strict=True)):
            num_inputs += 1
            why = late.get(span, {}).get(number, reason)
            fate = "rejected" if number in late.get(span, {}) or status not in (KEPT, IGNORED) else status
            num_ignored += fate == IGNORED
            if fate == "rejected":
                rejected[why] += 1
            for name, value in _traits(fate, why, rest):
                found.setdefault(name, Counter())[value] += 1
    histograms = {name: _shorten(values) for name, values in sorted(found.items())}
    return Counts(num_inputs, num_ignored, dict(sorted(rejected.items())), histograms)


@dataclass(frozen=True)
class AugmentedCounts:
    """Counts of what was made of accepted samples."""

    num_kept: int
    histograms: dict[str, dict[str, int]]


def count_augmented(store: Store, prefix: str, staged: Staged, refusals: Refusals, num_spans: int) -> AugmentedCounts:
    """Count augmented samples, those of the spans after the first `num_spans`, as `count_inputs` does inputs."""
    late = _late(staged, refusals)
    found: dict[str, Counter[str]] = {}
    for span in staged.spans[num_spans:]:
        table = read_index(store, index_name(prefix, span), ("status", "reason", "augmentation"))
        if missing := missing_of(table):
            found.setdefault(MISSING, Counter()).update(missing)
        for number, row in enumerate(table.to_pylist()):
            why = late.get(span, {}).get(number, row["reason"])
            name, value = (AUGMENTED, row["augmentation"]) if why is None else (f"{AUGMENTED}, rejected", why)
            found.setdefault(name, Counter())[value] += 1
    histograms = {name: _shorten(values) for name, values in sorted(found.items())}
    return AugmentedCounts(sum(histograms.get(AUGMENTED, {}).values()), histograms)


def resolution_class(width: int | None, height: int | None) -> str:
    """Class of a picture by its shorter side."""
    if not width or not height:
        return UNSTATED
    side = min(width, height)
    above = [bound for bound in SIDES if bound > side]
    return f"< {above[0]} px" if above else f">= {SIDES[-1]} px"


def _late(staged: Staged, refusals: Refusals) -> dict[str, dict[int, str]]:
    """Reasons of rules over the set, by span and row."""
    late: dict[str, dict[int, str]] = {}
    for sample, (reason, _) in refusals.by_sample.items():
        span, row = next(staged.where(np.asarray([sample])))
        late.setdefault(span, {})[row] = reason
    return late


def _traits(fate: str, reason: str | None, rest: Sequence[Any]) -> list[tuple[str, str]]:
    source, kind, licence, bucket, edit_type, width, height = rest
    traits = [(f"{fate} by source", source)]
    if fate == "rejected":
        traits.append((f"reasons of {source}", reason or UNSTATED))
    if fate == KEPT:
        traits += [
            ("kind", kind),
            ("licence", licence or UNSTATED),
            ("bucket", bucket or "(own size)"),
            ("original resolution", resolution_class(width, height)),
        ]
        if edit_type:
            traits.append(("edit type", edit_type))
    return traits


def _shorten(values: Counter[str]) -> dict[str, int]:
    """The most frequent values, sorted by name; the rest together."""
    ranked = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ranked[LARGEST:])
    return dict(sorted(ranked[:LARGEST])) | ({OTHER: rest} if rest else {})
