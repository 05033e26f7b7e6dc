"""What a data set says of itself, whoever wrote it: scene data sets, builds, tars that were indexed, encoded sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from dreamline.config import ConfigError
from dreamline.data.collection import COLLECTION_VERSION, parse_collection
from dreamline.data.index import FOLDER_INDEX, FolderInfo, SampleIndex, open_index, parse_marker
from dreamline.data.manifest import DATASET, sum_counts
from dreamline.storage import join, read_bytes

Type = Literal["scenes", "build", "webdataset", "encoded"]


@dataclass(frozen=True)
class Target:
    """A data set to look at."""

    location: str
    type: Type
    name: str
    fingerprint: str
    num_samples: int
    num_shards: int
    num_bytes: int
    rejected: Mapping[str, int] = field(default_factory=dict)  # by reason
    facts: Mapping[str, Any] = field(default_factory=dict)  # what else its marker says, plain JSON
    sizes: Mapping[str, int] = field(default_factory=dict)  # samples by kind and size, of an encoded set

    @cached_property
    def index(self) -> SampleIndex:
        """Where its samples lie.

        Raises:
            ConfigError: it is an encoded set, or damaged.
        """
        if self.type == "encoded":
            raise ConfigError(
                f"{self.location}: encoded samples hold no pictures; inspect the data set that they were made from"
            )
        return open_index(self.location)


def open_target(location: str) -> Target:
    """Read what describes a data set.

    Raises:
        ConfigError: there is none; says what to do.
    """
    folder = location.rstrip("/")
    path = join(folder, DATASET)
    try:
        content = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return _indexed(folder)
    values = parse_marker(content, path)
    if "text_dim" in values:
        return _encoded(folder, values)
    if values.get("schema_version") == COLLECTION_VERSION:
        return _build(folder, content, path)
    index = open_index(folder)
    return _with_shards(
        folder, "scenes", index, rejected=values["rejected"], facts=_some(values, "num_inputs", "width", "height")
    )


def _build(folder: str, content: bytes, path: str) -> Target:
    info = parse_collection(content, path)
    facts = {
        "num_builds": len(info.increments),
        "num_inputs": sum(item.num_inputs for item in info.increments),
        "num_augmented": sum(item.num_augmented for item in info.increments),
        "num_negatives": sum(shard.samples for item in info.increments for shard in item.negatives),
        "num_failures": info.failures.rows,
    }
    rejected = sum_counts(item.rejected for item in info.increments)
    return _with_shards(folder, "build", open_index(folder), rejected=rejected, facts=facts)


def _indexed(folder: str) -> Target:
    index = open_index(folder)  # says what is missing
    info = FolderInfo.model_validate_json(read_bytes(join(folder, FOLDER_INDEX)))
    damaged = {shard.name: shard.damage for shard in info.shards if shard.damage is not None}
    facts = {"damaged": damaged} if damaged else {}
    return _with_shards(folder, "webdataset", index, rejected=info.rejected, facts=facts)


def _encoded(folder: str, values: Mapping[str, Any]) -> Target:
    shards = values["shards"]
    sizes: dict[str, int] = {}
    for shard in shards:
        of = {**values, **shard}  # older ones say once for all shards what newer ones say of each
        name = f"{of['kind']} {of['width']}x{of['height']}"
        sizes[name] = sizes.get(name, 0) + shard["samples"]
    return Target(
        location=folder,
        type="encoded",
        name=values["name"],
        fingerprint=values["fingerprint"],
        num_samples=values["num_samples"],
        num_shards=len(shards),
        num_bytes=sum(shard["size"] for shard in shards),
        facts=_some(values, "num_rows", "text_dim", "latent_shape", "settings", "parents"),
        sizes=sizes,
    )


def _with_shards(folder: str, type: Type, index: SampleIndex, **values: Any) -> Target:
    return Target(
        location=folder,
        type=type,
        name=index.name,
        fingerprint=index.fingerprint,
        num_samples=len(index),
        num_shards=len(index.shards),
        num_bytes=sum(shard.size for shard in index.shards),
        **values,
    )


def _some(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}
