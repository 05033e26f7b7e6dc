"""What is computed in this room: data sets, and their encoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dreamline.config import Config, ConfigError, Input, Job, apply_override, build, digest
from dreamline.encoding.settings import EncodeSettings, Precision
from dreamline.scenes.world import World
from dreamline.storage import hash_folder


class DataStage(Config):
    """A generation and an editing data set drawn from the scene world."""

    world: World = World()
    name: str = Field("scenes", pattern="^[a-z0-9_-]+$", description="first part of shard names and sample keys")
    num_t2i: int = Field(ge=1, description="images with captions to make")
    num_edit: int = Field(ge=1, description="edit triplets to make")
    shard_size: int = Field(1000, ge=1, le=10_000, description="samples per shard, kept and rejected ones together")
    resolution: int | None = Field(None, ge=16, description="side of the images, px; the world's size by default")
    seed: int = Field(0, ge=0)

    @property
    def side(self) -> int:
        """Side of the images, px."""
        return self.resolution or self.world.size


class DataJob(Job):
    """No inputs. Outputs: t2i, edit (data set folders)."""

    recipe_version: ClassVar[int] = 1

    stage: DataStage


class EncodeStage(Config):
    """Latents and text features of both data sets, from frozen encoders."""

    encoders: str = Field(
        "assets/encoders", description="folder with vae, text_encoder, tokenizer, processor, scheduler"
    )
    batch_size: int = Field(50, ge=1, description="samples encoded together; batches never span shards")
    latent_dtype: Precision = "float32"  # what is trained on, and small
    text_dtype: Precision = "float16"  # nearly all of the bytes; states are of order 1, and 11 bits do for them

    @property
    def settings(self) -> EncodeSettings:
        """How samples are encoded."""
        return EncodeSettings(batch_size=self.batch_size, latent_dtype=self.latent_dtype, text_dtype=self.text_dtype)


class EncodeJob(Job):
    """Inputs: t2i, edit (from data) and encoders (see `encoders_input`). Outputs: t2i, edit, frozen."""

    recipe_version: ClassVar[int] = 1

    stage: EncodeStage


class EncodeRequest(Config):
    """What `dreamline data encode` is asked for."""

    data: str = Field(description="data set to encode: a folder or s3://bucket/prefix")
    output: str = Field("", description="folder of the encoded samples; default: beside a local data set")
    encoders: str = Field("assets/encoders", description="folder with vae, text_encoder, tokenizer, processor")
    settings: EncodeSettings = EncodeSettings(text_dtype="float16")
    limit: int | None = Field(None, ge=0, description="stop once this many samples are encoded; files stay whole")
    num_workers: int = Field(1, ge=1, description="tasks at a time")
    num_threads: int = Field(1, ge=1, description="compute threads of each")


def load_request(
    data: str, output: str, encoders: str, overrides: Sequence[str], limit: int | None, workers: int
) -> EncodeRequest:
    """A request from the command line; `overrides` are settings, such as text_dtype=bfloat16.

    Raises:
        ConfigError: an override is wrong.
    """
    values: dict[str, Any] = {"settings": {"text_dtype": "float16"}}
    for item in overrides:
        apply_override(values, f"settings.{item}")
    told = {"data": data, "output": output, "encoders": encoders, "limit": limit, "num_workers": workers}
    return build(EncodeRequest, {**values, **told}, "--set")


def encoders_input(folder: str | Path) -> Input:
    """The encoders as an input of the job: so their content counts for the job's digest, not only their path.

    Raises:
        ConfigError: the folder is missing or empty.
    """
    files = hash_folder(folder)
    if not files:
        raise ConfigError(f"{folder}: no encoders there; `make encoders` makes them (encode.yaml: stage.encoders)")
    return Input(path=str(folder), digest=digest(files))
