"""The scene world as a source: exact captions and edits without a file to read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from data_prep.record import Picture, Problem, Record
from data_prep.sources.config import Scenes
from data_prep.sources.reader import SPAN_ROWS, Span
from data_prep.sources.scenes import SceneSource
from dreamline.data.sample import Kind, Sample

BATCH = 100  # samples drawn and checked together


@dataclass(frozen=True)
class ScenesReader:
    """See `Reader`. A sample depends on the seed and its number alone."""

    scenes: Scenes
    name: str

    def spans(self) -> list[Span]:
        """See `Reader`."""
        counts = {"t2i": self.scenes.num_t2i, "edit": self.scenes.num_edit}
        return [
            Span(f"{kind}#{start}", stop - start, start=start, stop=stop, first_row=start)
            for kind, count in counts.items()
            for start in range(0, count, SPAN_ROWS)
            for stop in [min(start + SPAN_ROWS, count)]
        ]

    def read(self, span: Span) -> Iterator[Record | Problem]:
        """See `Reader`. Samples that the world keeps for evaluation are problems."""
        kind: Kind = "edit" if span.name.startswith("edit#") else "t2i"
        side = self.scenes.side or self.scenes.world.size
        count = self.scenes.num_edit if kind == "edit" else self.scenes.num_t2i
        source = SceneSource(kind, self.scenes.world, self.name, count, self.scenes.seed, side)
        stop = count if span.stop is None else span.stop
        for start in range(span.start, stop, BATCH):
            samples = [source.sample(number) for number in range(start, min(start + BATCH, stop))]
            for sample, reason in zip(samples, source.problems(samples), strict=True):
                yield _record(sample) if reason is None else Problem(sample.key, reason, f"a scene of {sample.text!r}")


def _record(sample: Sample) -> Record:
    return Record(
        row=sample.key,
        kind=sample.kind,
        text=sample.text,
        image=Picture(sample.image),
        source=None if sample.source is None else Picture(sample.source),
        label=sample.label,
        extra={"facts": json.dumps(sample.facts, sort_keys=True, separators=(",", ":"))},
    )
