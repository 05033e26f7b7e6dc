"""The YAML of a build: where rows come from, what is done to them, and where the data set goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from data_prep.edits.config import AugmentConfig, EditChecksConfig, EditSetConfig
from data_prep.fetch.config import FetchConfig
from data_prep.filters.config import CaptionerConfig, FiltersConfig
from data_prep.sources.config import SourceConfig
from dreamline.config import Config, Job, apply_override, build, digest, read_yaml
from dreamline.endpoint import ADDRESS
from dreamline.media.config import BucketConfig, DecodeConfig

PATHS = frozenset(  # keys, anywhere in the file, whose values are paths
    (
        *("output", "path", "pictures", "banned_file", "head", "images", "hashes", "prompts", "prompt_file"),
        *("ca_file", "api_key_file"),
    )
)
MODEL = "model"  # the same if it is a folder; else the id of a repository, or of an endpoint the name of a model


class ImageConfig(Config):
    """How pictures are read and stored. Of `buckets` and the sides at most one; none keeps their sizes."""

    decode: DecodeConfig = DecodeConfig()
    buckets: BucketConfig | None = Field(None, description="scale and crop into the nearest of a family of shapes")
    shorter_side: int | None = Field(None, ge=16, description="px; larger pictures are scaled down to it")
    longer_side: int | None = Field(None, ge=16, description="px; larger pictures are scaled down to it")
    pair_tolerance: float = Field(
        1.0, ge=0, description="px by which source and target of an edit may be off one aspect, from rounding"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> ImageConfig:
        rules = ("buckets", "shorter_side", "longer_side")
        given = [name for name in rules if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are set, but a picture gets one geometry; keep one of them")
        return self


class EditConfig(Config):
    """What is asked of edit triplets."""

    checks: EditChecksConfig = EditChecksConfig()
    together: EditSetConfig = Field(EditSetConfig(), description="rules over all edits of the build")
    augment: AugmentConfig = Field(AugmentConfig(), description="edits that follow from accepted ones")
    negatives: bool = Field(True, description="keep rejected triplets of which both pictures are sound, as negatives")


class ShardConfig(Config):
    """Size of the output files; what comes first ends a shard."""

    max_bytes: int = Field(256 * 2**20, ge=1, description="bytes; a single larger sample still gets a shard")
    max_samples: int = Field(10_000, ge=1)


class BuildConfig(Config):
    """One data set. Lists of numbers and names say what is computed; `output` and what follows it say how."""

    name: str = Field("dataset", pattern="^[a-z0-9][a-z0-9_-]{0,39}$", description="first part of shard names")
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    fetch: FetchConfig = FetchConfig()
    image: ImageConfig = ImageConfig()
    captions: CaptionerConfig | None = Field(None, description="captions of pictures by a model behind an endpoint")
    filters: FiltersConfig = FiltersConfig()
    edits: EditConfig = EditConfig()
    shards: ShardConfig = ShardConfig()

    output: str = Field(min_length=1, description="folder or s3://bucket/prefix")
    workers: int | None = Field(None, ge=1, description="tasks at a time; default: one per core of this machine")
    fetch_threads: int = Field(16, ge=1, le=512, description="downloads at a time in each task")
    tracking_uri: str | None = Field(None, description="MLflow address that the data set is logged to")
    report: bool = Field(True, description="leave report.html and report.json beside the data set")
    report_samples: int = Field(16, ge=0, le=200, description="pictures shown per source and per reason in the report")

    @model_validator(mode="after")
    def _names(self) -> BuildConfig:
        names = self.source_names
        if len(set(names)) < len(names):
            raise ValueError(f"sources: two have the same name ({', '.join(names)}); rows must be told apart")
        unknown = sorted(set(self.captions.sources) - set(names)) if self.captions is not None else []
        if unknown:
            raise ValueError(f"captions.sources: no source is named {unknown[0]!r} (there are: {', '.join(names)})")
        return self

    @property
    def source_names(self) -> list[str]:
        """One name per source, for the manifest."""
        return [source.name or f"{source.kind}-{number}" for number, source in enumerate(self.sources)]

    @property
    def num_workers(self) -> int:
        """Tasks at a time."""
        return self.workers or len(os.sched_getaffinity(0))

    def content(self) -> dict[str, Any]:
        """The part that decides what comes out."""
        how = ("output", "workers", "fetch_threads", "tracking_uri", "report", "report_samples")
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in how}

    def identity(self) -> Any:
        """`content` without the addresses of models, so that a build goes on when their server has moved."""
        return _without_addresses(self.content())

    def digest(self) -> str:
        """Identity of what is asked for, wherever it goes and however it is carried out."""
        return digest(self.identity())


class BuildJob(Job):
    """A build as a stage of a flow. No inputs. Output: summary (what the command line would print)."""

    recipe_version: ClassVar[int] = 2

    stage: BuildConfig


def load_build(path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> BuildConfig:
    """Read a YAML file; relative paths in it are relative to its folder.

    Raises:
        ConfigError: names the file, every wrong key and what is wrong with it.
    """
    values = read_yaml(path)
    for item in overrides:
        apply_override(values, item)
    return build(BuildConfig, anchored(values, Path(path).parent), str(path))


def _without_addresses(value: Any) -> Any:
    if isinstance(value, Mapping):
        hidden = ADDRESS if "base_url" in value else ()
        return {name: _without_addresses(item) for name, item in value.items() if name not in hidden}
    return [_without_addresses(item) for item in value] if isinstance(value, list) else value


def anchored(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same values with relative paths put below a folder; what is no path, or a URL, stays."""
    name_of_model = MODEL if "base_url" in values else ""
    return {name: value if name == name_of_model else _anchor(name, value, folder) for name, value in values.items()}


def _anchor(name: str, value: Any, folder: Path) -> Any:
    if isinstance(value, Mapping) and name not in ("columns", "where"):
        return anchored(value, folder)
    if isinstance(value, list):
        return [_anchor(name, item, folder) for item in value]
    if isinstance(value, str) and value and "://" not in value:
        path = (folder / Path(value).expanduser()).resolve()
        if name in PATHS or (name == MODEL and (value.startswith((".", "~")) or path.is_dir())):
            return str(path)
    return value
