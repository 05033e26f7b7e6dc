"""What describes a data set on disk: `dataset.json`, written last, so what it lists is complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dreamline.config import Config, ConfigError, build
from dreamline.data.sample import Kind
from dreamline.storage import write_text

DATASET = "dataset.json"
MANIFEST = "manifest.parquet"
REJECTS = "rejects.parquet"
SCHEMA_VERSION = 1


class ShardEntry(Config):
    """One finished file."""

    name: str
    sha256: str
    samples: int
    size: int  # bytes
    records: str | None = None  # encoded sets: sha256 of the sidecar


class DatasetInfo(Config):
    """A sharded image data set. `num_inputs` = samples in all shards + rejected ones: nothing vanishes."""

    schema_version: int = SCHEMA_VERSION
    kind: Kind
    name: str
    plan: str  # digest of what was asked for
    fingerprint: str  # of the content, whatever the layout of shards
    width: int  # px
    height: int
    shards: tuple[ShardEntry, ...]
    num_inputs: int
    num_samples: int
    rejected: dict[str, int]  # by reason
    parents: dict[str, str]
    statistics: dict[str, dict[str, int]]


def read_values(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Where a folder's dataset.json lies, and what is in it.

    Raises:
        ConfigError: there is none (unfinished, or a wrong path).
    """
    path = Path(folder) / DATASET
    if not path.is_file():
        raise ConfigError(f"{folder}: no {DATASET}; not a data set, or its job has not finished (run it again)")
    return path, json.loads(path.read_text())


def read_info(folder: str | Path) -> DatasetInfo:
    """Read a folder's dataset.json.

    Raises:
        ConfigError: there is none, or it is of another kind or version.
    """
    path, values = read_values(folder)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise ConfigError(
            f"{path}: schema {values.get('schema_version')}, this code reads {SCHEMA_VERSION}; rebuild it"
        )
    return build(DatasetInfo, values, str(path))


def write_info(info: DatasetInfo, folder: str | Path) -> None:
    """Publish a folder: everything that it lists is in place."""
    write_text(Path(folder) / DATASET, json.dumps(info.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")


def fingerprint(parts: Iterable[tuple[str, ...]]) -> str:
    """sha256 over sorted tuples of strings, such as (key, member hashes): equal for equal content in any layout."""
    summary = hashlib.sha256()
    for part in sorted(parts):
        summary.update(json.dumps(part, separators=(",", ":")).encode() + b"\n")
    return summary.hexdigest()


def read_table(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a parquet file."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def count(values: Iterable[str]) -> dict[str, int]:
    """Histogram, sorted by name."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))


def sum_counts(histograms: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sum of histograms, sorted by name."""
    total: dict[str, int] = {}
    for histogram in histograms:
        for name, number in histogram.items():
            total[name] = total.get(name, 0) + number
    return dict(sorted(total.items()))
