"""What describes a data set that grows: `dataset.json`, one increment per build, each listing files that never change.

Every file but `dataset.json` has a hash of its content in its name, so a reader that follows `dataset.json` sees one
version of the whole, whatever is being written beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from dreamline.config import Config, ConfigError, build
from dreamline.data.manifest import sum_counts
from dreamline.data.sample import Kind

COLLECTION_VERSION = 2


class FileEntry(Config):
    """One file that never changes."""

    name: str  # below the data set
    sha256: str
    size: int  # bytes


class TableEntry(FileEntry):
    """A parquet file."""

    rows: int


class ShardFile(FileEntry):
    """A WebDataset tar; all its samples are of one kind and in one bucket."""

    samples: int
    kind: Kind
    bucket: str | None = None  # "<width>x<height>"; None where pictures keep sizes of their own


class Increment(Config):
    """What one build added. `num_inputs` = `num_kept` + rejected + `num_ignored`: nothing vanishes.

    Augmented samples, made of kept ones, are no inputs: its shards hold `num_kept` + `num_augmented` samples.
    """

    request: str  # digest of what was asked for, and of the files that it was asked of
    config: dict[str, Any]  # what was asked for
    prompts: dict[str, str] = {}  # that captions were asked for with, by their sha256
    files_named: dict[str, str] = {}  # digest of what the files that rules name held, by path
    models: dict[str, str] = {}  # what tells the model behind scores and embeddings, by name of the scorer
    retry: str | None = None  # the failures that were tried again, where that is what the build did
    num_inputs: int
    num_kept: int
    num_ignored: int  # in the data set already
    num_augmented: int = 0
    rejected: dict[str, int]  # by reason
    shards: tuple[ShardFile, ...]
    manifest: TableEntry | None  # of the shards, in their order
    negatives: tuple[ShardFile, ...] = ()  # shards of rejected edits, for preference learning
    negatives_manifest: TableEntry | None = None
    preferences: TableEntry | None = None  # which negative is the worse attempt at which sample's instruction
    evidence: TableEntry | None = None  # pairs that set-level filters went by
    embeddings: TableEntry | None = None  # of the samples, where a filter compares embeddings
    statistics: dict[str, dict[str, int]]  # histograms over inputs and over kept samples

    @property
    def num_rejected(self) -> int:
        """Inputs that are in the rejects table."""
        return sum(self.rejected.values())

    def files(self) -> list[FileEntry]:
        """All files of the increment."""
        tables = (self.manifest, self.negatives_manifest, self.preferences, self.evidence, self.embeddings)
        return [*self.shards, *self.negatives, *(table for table in tables if table is not None)]


class CollectionInfo(Config):
    """A data set built from sources: images and edits, in shards by kind and bucket."""

    schema_version: int = COLLECTION_VERSION
    name: str
    fingerprint: str  # over keys and member hashes of all samples, whatever the layout of shards
    num_samples: int
    increments: tuple[Increment, ...] = Field(min_length=1)
    rejects: TableEntry  # of all increments: inputs that are not in the data set, with the reason
    failures: TableEntry  # those among them that could not be fetched, with what it takes to try again

    @property
    def shards(self) -> tuple[ShardFile, ...]:
        """All shards, the oldest first."""
        return tuple(shard for increment in self.increments for shard in increment.shards)

    @property
    def manifests(self) -> tuple[TableEntry, ...]:
        """The manifest of each increment that has samples."""
        return tuple(increment.manifest for increment in self.increments if increment.manifest is not None)

    @property
    def statistics(self) -> dict[str, dict[str, int]]:
        """Histograms of all increments together."""
        names = sorted({name for increment in self.increments for name in increment.statistics})
        return {name: sum_counts(item.statistics.get(name, {}) for item in self.increments) for name in names}

    def files(self) -> list[FileEntry]:
        """Every file that belongs to this version, besides dataset.json."""
        return [*(file for increment in self.increments for file in increment.files()), self.rejects, self.failures]

    def to_json(self) -> bytes:
        """Content of dataset.json."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


def parse_collection(content: bytes, origin: str) -> CollectionInfo:
    """Read the content of a dataset.json.

    Raises:
        ConfigError: damaged, or of another kind or version; names `origin`.
    """
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{origin}: not readable as JSON ({error}); restore it, or build again") from None
    version = values.get("schema_version") if isinstance(values, Mapping) else None
    if version != COLLECTION_VERSION:
        raise ConfigError(
            f"{origin}: schema {version}, this code reads {COLLECTION_VERSION}; "
            "it is the data set of another stage, or made by another version"
        )
    return build(CollectionInfo, values, origin)


def fingerprint_sorted(parts: Iterable[tuple[str, ...]]) -> str:
    """The fingerprint of `manifest.fingerprint`, in a stream that is sorted already.

    Raises:
        ValueError: two parts begin with the same key, or are out of order.
    """
    summary, last = hashlib.sha256(), ""
    for part in parts:
        if part[0] <= last:
            raise ValueError(f"sample {part[0]} follows {last}: keys must be unique and sorted")
        last = part[0]
        summary.update(json.dumps(part, separators=(",", ":")).encode() + b"\n")
    return summary.hexdigest()
