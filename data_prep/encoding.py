"""Encoding one shard, the unit of work: what comes out depends on the shard, the encoders and the stage alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from data_prep.config import EncodeStage
from data_prep.features import Encoded, write_features
from dreamline.data.sample import Sample, decode_png
from dreamline.data.shards import ShardSet
from dreamline.model.text import TextEncoder
from dreamline.model.vae import encode, load_vae, to_tensor

T = TypeVar("T")


@dataclass(frozen=True)
class EncodeTask:
    """One shard of a data set, to be encoded into `folder`."""

    dataset: str
    shard: str
    num_samples: int
    folder: str
    frozen: str
    plan: str
    stage: EncodeStage
    threads: int

    @property
    def stem(self) -> str:
        """Name of the encoded shard: the shard's without its content hash."""
        return self.shard.rsplit("-", 1)[0]


def encode_shard(task: EncodeTask) -> int:
    """Encode and publish one shard, in batches that depend on the shard alone.

    Returns:
        Number of samples.
    """
    torch.set_num_threads(task.threads)
    encoders = _encoders(task.frozen)
    samples = list(_shards(task.dataset).shard(task.shard))
    encode_samples = encode_edits if samples[0].kind == "edit" else encode_images
    encoded = encode_samples(samples, encoders, task.stage.batch_size)
    latent_dtype, text_dtype = (getattr(torch, name) for name in (task.stage.latent_dtype, task.stage.text_dtype))
    write_features(encoded, Path(task.folder), task.stem, task.plan, latent_dtype, text_dtype)
    return len(samples)


@dataclass(frozen=True)
class Encoders:
    """The frozen networks."""

    vae: Any
    text: TextEncoder

    @torch.no_grad()
    def latents(self, images: Sequence[bytes]) -> Tensor:
        """Latents [B, C, h, w] of PNG files of one size."""
        return encode(self.vae, torch.stack([to_tensor(decode_png(image)) for image in images]))


def encode_images(samples: Sequence[Sample], encoders: Encoders, batch_size: int) -> Encoded:
    """Images and captions."""
    latents: list[Tensor] = []
    texts: list[Tensor] = []
    for batch in _batches(samples, batch_size):
        latents.append(encoders.latents([sample.image for sample in batch]))
        texts += encoders.text.encode_generate([sample.text for sample in batch])
    return Encoded(samples, torch.cat(latents), texts, [encoders.text.null_generate()])


def encode_edits(samples: Sequence[Sample], encoders: Encoders, batch_size: int) -> Encoded:
    """Edit triplets. What the text encoder makes of a source comes from its empty prompt, once per different image."""
    latents: list[Tensor] = []
    source_latents: list[Tensor] = []
    texts: list[Tensor] = []
    images: list[Tensor] = []
    nulls: list[Tensor] = []
    number: dict[bytes, int] = {}  # of a source image
    for batch in _batches(samples, batch_size):
        sources = [_source(sample) for sample in batch]
        latents.append(encoders.latents([sample.image for sample in batch]))
        source_latents.append(encoders.latents(sources))
        row = {source: i for i, source in enumerate(dict.fromkeys(sources))}
        looks = encoders.text.look([Image.fromarray(decode_png(source)) for source in row])
        length = encoders.text.num_image_tokens(looks)[0]  # the same for all squares
        new = [source for source in row if source not in number]
        for states in encoders.text.null_edit(looks[[row[source] for source in new]]) if new else ():
            images.append(states[:length])
            nulls.append(states[length:])
        number |= {source: len(number) + i for i, source in enumerate(new)}
        prompts = [sample.text for sample in batch]
        found = encoders.text.encode_edit(prompts, looks[[row[source] for source in sources]])
        texts += [states[length:] for states in found]
    index = [number[_source(sample)] for sample in samples]
    return Encoded(samples, torch.cat(latents), texts, nulls, torch.cat(source_latents), images, index)


def _source(sample: Sample) -> bytes:
    if sample.source is None:
        raise ValueError(f"sample {sample.key}: an edit needs a source image")
    return sample.source


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


@lru_cache(maxsize=1)
def _encoders(folder: str) -> Encoders:
    return Encoders(load_vae(Path(folder)), TextEncoder.from_folder(Path(folder)))


@lru_cache(maxsize=2)
def _shards(folder: str) -> ShardSet:
    return ShardSet(folder)
