"""From a source to one finished shard, the unit of work: what it holds depends on the source and its numbers alone."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.manifest import ShardPart, read_part, write_part
from data_prep.sources.scenes import Source
from data_prep.tar import TarWriter
from dreamline.data.manifest import ShardEntry, count
from dreamline.data.sample import Sample
from dreamline.storage import write_bytes


@dataclass(frozen=True)
class ShardTask:
    """Samples start..stop-1 of a source as shard `number` of a folder."""

    source: Source
    folder: str
    number: int
    start: int
    stop: int
    plan: str  # digest of what the data set is made from

    @property
    def stem(self) -> str:
        """Name of the shard without its content hash."""
        return f"{self.source.name}-{self.source.kind}-{self.number:06d}"


def plan_shards(source: Source, folder: str | Path, shard_size: int, plan: str) -> list[ShardTask]:
    """Cut a source into shards."""
    starts = range(0, source.num_samples, shard_size)
    return [
        ShardTask(source, str(folder), number, start, min(start + shard_size, source.num_samples), plan)
        for number, start in enumerate(starts)
    ]


def is_written(task: ShardTask) -> bool:
    """Whether the shard is there from an earlier attempt, complete and undamaged."""
    return read_part(Path(task.folder), task.number, task.plan) is not None


def write_shard(task: ShardTask) -> int:
    """Make, check and publish one shard, then its part of the manifest.

    The tar gets its content hash into its name, so writing it twice changes nothing. Every number of the task ends in
    the tar or among the part's rejects.

    Returns:
        Number of samples handled, kept and rejected.
    """
    source = task.source
    samples = [source.sample(index) for index in range(task.start, task.stop)]
    reasons = source.problems(samples)
    kept = [sample for sample, reason in zip(samples, reasons, strict=True) if reason is None]
    entry, rows = write_tar(kept, Path(task.folder), task.stem)
    rejects = [
        {"key": sample.key, "reason": reason, "text": sample.text, "label": sample.label, "facts": _plain(sample)}
        for sample, reason in zip(samples, reasons, strict=True)
        if reason is not None
    ]
    traits = [source.traits(sample) for sample in kept]
    names = sorted({name for trait in traits for name in trait})
    statistics = {name: count(value for trait in traits for value in trait.get(name, ())) for name in names}
    part = ShardPart(plan=task.plan, entry=entry, rows=rows, rejects=rejects, statistics=statistics)
    write_part(part, Path(task.folder), task.number)
    return len(samples)


def write_tar(samples: Sequence[Sample], folder: Path, stem: str) -> tuple[ShardEntry, list[dict[str, Any]]]:
    """Write samples as one WebDataset shard `<stem>-<hash>.tar`, atomically.

    Returns:
        What to list of the shard, and the manifest rows of its samples with offset, size and sha256 of every member.
    """
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    placed = [writer.write(sample.key, sample.members()) for sample in samples]
    writer.close()
    content, digest = buffer.getvalue(), writer.sha256.hexdigest()
    entry = ShardEntry(name=f"{stem}-{digest[:12]}.tar", sha256=digest, samples=len(samples), size=len(content))
    write_bytes(folder / entry.name, content)
    rows = [
        {
            "key": sample.key,
            "shard": entry.name,
            "split": "train",
            "text": sample.text,
            "label": sample.label,
            "facts": _plain(sample),
            "width": sample.width,
            "height": sample.height,
            "members": where,
        }
        for sample, where in zip(samples, placed, strict=True)
    ]
    return entry, rows


def _plain(sample: Sample) -> str:
    return json.dumps(sample.facts, sort_keys=True, separators=(",", ":"))
