"""The manifest of a data set: one part per shard while it is built, then parquet tables, then dataset.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.sources.scenes import Source
from dreamline.config import Config
from dreamline.data.manifest import (
    DATASET,
    MANIFEST,
    REJECTS,
    DatasetInfo,
    ShardEntry,
    count,
    fingerprint,
    read_info,
    sum_counts,
    write_info,
)
from dreamline.storage import sha256, write_bytes, write_text

PARTS = "parts"


class ShardPart(Config):
    """A finished shard: its manifest rows, what was rejected on the way, and histograms of what was kept."""

    plan: str
    entry: ShardEntry
    rows: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    statistics: dict[str, dict[str, int]]


def write_part(part: ShardPart, folder: Path, number: int) -> None:
    """Mark a shard as finished; the shard itself is in place already."""
    write_text(folder / PARTS / f"{number:06d}.json", part.model_dump_json() + "\n")


def read_part(folder: Path, number: int, plan: str) -> ShardPart | None:
    """A finished shard's part, or None if it has to be made: missing, of another plan, or the shard is damaged."""
    path = folder / PARTS / f"{number:06d}.json"
    if not path.is_file():
        return None
    values = json.loads(path.read_text())
    if values.get("plan") != plan:
        return None
    part = ShardPart.model_validate(values)
    shard = folder / part.entry.name
    return part if shard.is_file() and sha256(shard) == part.entry.sha256 else None


def read_dataset(folder: Path, plan: str) -> DatasetInfo | None:
    """The finished data set of this plan, if the folder holds it."""
    if not (folder / DATASET).is_file():
        return None
    info = read_info(folder)
    return info if info.plan == plan else None


def sweep(folder: Path) -> None:
    """Remove what killed writers left behind. Nobody else may be writing."""
    for leftover in folder.rglob(".*.tmp-*"):
        leftover.unlink()
    if (folder / DATASET).is_file():  # a finished data set has no parts
        shutil.rmtree(folder / PARTS, ignore_errors=True)


def publish_dataset(
    source: Source, folder: Path, plan: str, num_shards: int, parents: Mapping[str, str]
) -> DatasetInfo:
    """Merge the parts into manifest.parquet and rejects.parquet and publish dataset.json, in this order.

    Raises:
        RuntimeError: a shard is missing, or samples are not accounted for.
    """
    parts = []
    for number in range(num_shards):
        part = read_part(folder, number, plan)
        if part is None:
            raise RuntimeError(f"{folder}: shard {number} is not finished or damaged; run the job again")
        parts.append(part)
    rows = [row for part in parts for row in part.rows]
    rejects = [row for part in parts for row in part.rejects]
    if len(rows) + len(rejects) != source.num_samples:
        raise RuntimeError(
            f"{folder}: {source.num_samples} samples asked for, {len(rows)} kept, {len(rejects)} rejected"
        )
    if len({row["key"] for row in [*rows, *rejects]}) != source.num_samples:
        raise RuntimeError(f"{folder}: keys are not unique; the source must number its samples")
    sweep(folder)
    listed = {part.entry.name for part in parts}
    for orphan in folder.glob("*.tar"):
        if orphan.name not in listed:
            orphan.unlink()
    write_table(rows, _manifest_schema(), folder / MANIFEST)
    write_table(rejects, _rejects_schema(), folder / REJECTS)
    names = sorted({name for part in parts for name in part.statistics})
    info = DatasetInfo(
        kind=source.kind,
        name=source.name,
        plan=plan,
        fingerprint=fingerprint((row["key"], *(member["sha256"] for member in row["members"])) for row in rows),
        width=source.resolution[0],
        height=source.resolution[1],
        shards=tuple(part.entry for part in parts),
        num_inputs=source.num_samples,
        num_samples=len(rows),
        rejected=count(row["reason"] for row in rejects),
        parents=dict(parents),
        statistics={name: sum_counts(part.statistics.get(name, {}) for part in parts) for name in names},
    )
    write_info(info, folder)
    sweep(folder)
    return info


def write_table(rows: Sequence[Mapping[str, Any]], schema: Any, path: Path) -> None:
    """Write rows as parquet, atomically; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def _manifest_schema() -> Any:
    import pyarrow as pa

    member = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("sha256", pa.string())])
    texts = [(name, pa.string()) for name in ("key", "shard", "split", "text", "label", "facts")]
    return pa.schema([*texts, ("width", pa.int32()), ("height", pa.int32()), ("members", pa.list_(member))])


def _rejects_schema() -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in ("key", "reason", "text", "label", "facts")])
