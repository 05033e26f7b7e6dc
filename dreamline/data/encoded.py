"""What describes an encoded data set: `dataset.json`, which lists the shards that are finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dreamline.config import Config, ConfigError, build
from dreamline.data.manifest import DATASET, ShardEntry, read_values
from dreamline.data.sample import Kind
from dreamline.storage import write_text

FEATURES_VERSION = 2


class FeatureShard(ShardEntry):
    """One encoded file; all its samples are of one kind and one size."""

    kind: Kind
    width: int  # px of the encoded pictures
    height: int
    latent_shape: tuple[int, int, int]  # channels, height, width
    rows: str | None = None  # sha256 of the file that says which samples they are; else the sidecar says it
    table: str | None = None  # sha256 of the table of all that is known of them


class FeaturesInfo(Config):
    """An encoded data set: latents and text features, of all samples of a data set or of some."""

    schema_version: int = FEATURES_VERSION
    name: str
    plan: str  # digest of what was asked for
    fingerprint: str  # names the values
    order_key: str  # what the order of the samples follows from
    text_dim: int
    shards: tuple[FeatureShard, ...]
    num_samples: int  # encoded ones
    num_rows: int  # of the data set
    key: dict[str, Any] = {}  # all that the values depend on
    settings: dict[str, Any] = {}  # how it was encoded, as `EncodeSettings`
    parents: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether every sample is encoded."""
        return self.num_samples == self.num_rows


def read_features_info(folder: str | Path) -> FeaturesInfo:
    """Read the dataset.json of an encoded data set, also one of version 1.

    Raises:
        ConfigError: there is none, or it is of another kind or version.
    """
    path, values = read_values(folder)
    if "text_dim" not in values:
        raise ConfigError(f"{path}: describes samples that are not encoded; run the encode job on it")
    if values["schema_version"] == 1:
        values = _from_version_1(values)
    if values["schema_version"] != FEATURES_VERSION:
        raise ConfigError(f"{path}: schema {values['schema_version']}, this code reads {FEATURES_VERSION}; rebuild it")
    return build(FeaturesInfo, values, str(path))


def write_features_info(info: FeaturesInfo, folder: str | Path) -> None:
    """Publish a folder: everything that it lists is in place."""
    write_text(Path(folder) / DATASET, json.dumps(info.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")


def _from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """Version 1 said once for all shards what version 2 says of each."""
    shared = {name: values[name] for name in ("kind", "width", "height", "latent_shape")}
    rest = {name: value for name, value in values.items() if name not in shared}
    added = {"order_key": values["fingerprint"], "num_rows": values["num_samples"]}
    return {
        **rest,
        **added,
        "schema_version": FEATURES_VERSION,
        "shards": [{**shard, **shared} for shard in values["shards"]],
    }
