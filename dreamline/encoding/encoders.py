"""The frozen networks at work: samples of one kind and size become latents and states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from dreamline.config import ConfigError
from dreamline.data.sample import Pixels, Sample
from dreamline.media.config import DecodeConfig
from dreamline.media.decode import decode
from dreamline.media.errors import MediaError
from dreamline.media.geometry import cover
from dreamline.model.text import TextEncoder
from dreamline.model.vae import encode, load_vae, to_tensor

T = TypeVar("T")
Size = tuple[int, int]  # width and height, px
DECODE = DecodeConfig(animated="first")


@dataclass(frozen=True)
class Encoded:
    """Encoded samples of one kind and size. D is the width of the text encoder."""

    samples: Sequence[Sample]
    latents: Tensor  # [N, C, h, w]
    texts: Sequence[Tensor]  # N of [L_i, D]; for edits what follows the image
    nulls: Sequence[Tensor]  # the empty prompt [L, D]: one for generation; for edits one per different image
    source_latents: Tensor | None = None  # [N, C, h, w], edits only, as all below
    images: Sequence[Tensor] = ()  # [L, D] per different source image
    image_index: Sequence[int] = ()  # N: which of `images` is the sample's

    def states(self, number: int) -> tuple[list[Tensor], list[Tensor]]:
        """States of a sample's prompt and of the empty prompt, in parts: of edits those of the image come first."""
        if not self.images:
            return [self.texts[number]], [self.nulls[0]]
        image = self.image_index[number]
        return [self.images[image], self.texts[number]], [self.images[image], self.nulls[image]]


class Encoders:
    """VAE and text encoder, float32.

    Attributes:
        factor: pixels per latent, on a side.
        latent_channels, text_dim: of what comes out.
    """

    def __init__(self, vae: Any, text: TextEncoder) -> None:
        self.vae, self.text = vae, text
        self.factor = 2 ** (len(vae.config.encoder_block_out_channels) - 1)
        self.latent_channels = int(vae.config.latent_channels)
        self.text_dim = text.hidden_size

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Encoders:
        """From a folder with `vae/`, `text_encoder/`, `tokenizer/` and `processor/`."""
        text = TextEncoder.from_folder(folder)
        text.model.to(device)
        return cls(load_vae(folder).to(device), text)

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Shape of the latents of pictures of this size."""
        width, height = size
        return self.latent_channels, height // self.factor, width // self.factor

    @torch.no_grad()
    def latents(self, pictures: Sequence[Pixels]) -> Tensor:
        """Latents [B, C, h, w] of pictures of one size."""
        images = torch.stack([to_tensor(picture) for picture in pictures])
        return encode(self.vae, images.to(self.text.device))

    def encode(self, samples: Sequence[Sample], size: Size, batch_size: int) -> Encoded:
        """Samples of one kind, their pictures brought to one size.

        Raises:
            ConfigError: a picture cannot be read; names the sample.
        """
        encode_samples = self._edits if samples[0].kind == "edit" else self._images
        return encode_samples(samples, size, batch_size)

    def _images(self, samples: Sequence[Sample], size: Size, batch_size: int) -> Encoded:
        """Images and captions."""
        latents: list[Tensor] = []
        texts: list[Tensor] = []
        for batch in _batches(samples, batch_size):
            latents.append(self.latents([picture(sample.key, sample.image, size) for sample in batch]))
            texts += self.text.encode_generate([sample.text for sample in batch])
        return Encoded(samples, torch.cat(latents), texts, [self.text.null_generate()])

    def _edits(self, samples: Sequence[Sample], size: Size, batch_size: int) -> Encoded:
        """Edit triplets. The states of a source picture come from its empty prompt, once per different picture."""
        latents: list[Tensor] = []
        source_latents: list[Tensor] = []
        texts: list[Tensor] = []
        images: list[Tensor] = []
        nulls: list[Tensor] = []
        number: dict[bytes, int] = {}  # of a source image
        for batch in _batches(samples, batch_size):
            sources = [_source(sample) for sample in batch]
            pictures = {
                source: picture(sample.key, source, size) for sample, source in zip(batch, sources, strict=True)
            }
            latents.append(self.latents([picture(sample.key, sample.image, size) for sample in batch]))
            source_latents.append(self.latents([pictures[source] for source in sources]))
            row = {source: i for i, source in enumerate(pictures)}
            looks = self.text.look([Image.fromarray(pixels) for pixels in pictures.values()])
            length = self.text.num_image_tokens(looks)[0]  # the same for all: they are shown as squares of one size
            new = [source for source in row if source not in number]
            for states in self.text.null_edit(looks[[row[source] for source in new]]) if new else ():
                images.append(states[:length])
                nulls.append(states[length:])
            number |= {source: len(number) + i for i, source in enumerate(new)}
            prompts = [sample.text for sample in batch]
            found = self.text.encode_edit(prompts, looks[[row[source] for source in sources]])
            texts += [states[length:] for states in found]
        index = [number[_source(sample)] for sample in samples]
        return Encoded(samples, torch.cat(latents), texts, nulls, torch.cat(source_latents), images, index)


def picture(key: str, content: bytes, size: Size) -> Pixels:
    """Upright sRGB pixels of a picture file, scaled to cover `size` and cropped in the middle where it has another.

    Raises:
        ConfigError: it cannot be read; names the sample.
    """
    try:
        return decode(content, DECODE, to=cover(*size)).pixels
    except MediaError as error:
        raise ConfigError(f"sample {key}: its picture cannot be read: {error}; leave it out, or build anew") from None


def _source(sample: Sample) -> bytes:
    if sample.source is None:
        raise ValueError(f"sample {sample.key}: an edit needs a source image")
    return sample.source


def _batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
