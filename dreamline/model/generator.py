"""Batched generation and editing with any published folder; at batch 1 the same computation as the stock pipelines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dreamline.data.batch import Batch
from dreamline.diffusion.randomness import normals
from dreamline.diffusion.sampler import sample
from dreamline.diffusion.timesteps import deployment_sigmas, resolution_factor
from dreamline.model.conditioning import guided_field
from dreamline.model.text import TextEncoder, pad
from dreamline.model.unet import load_unet
from dreamline.model.vae import decode, encode, load_vae, to_tensor, to_uint8


@dataclass(frozen=True)
class Sampling:
    """How pictures are made. A few-step student runs without guidance (both scales 1)."""

    num_steps: int = 28
    guidance_scale: float = 3.5
    image_guidance_scale: float = 1.5


STUDENT = Sampling(num_steps=4, guidance_scale=1.0, image_guidance_scale=1.0)


def is_student(folder: Path) -> bool:
    """Whether a published folder holds a few-step student."""
    index = json.loads((folder / "model_index.json").read_text())
    return str(index["_class_name"]) == "DreamLiteMobilePipeline"


class Generator:
    """A U-Net with its frozen parts, ready to make pictures."""

    def __init__(self, unet: Any, frozen: Path, device: torch.device) -> None:
        self.device, self.unet = device, unet
        self.vae = load_vae(frozen).to(device)
        self.text = TextEncoder.from_folder(frozen)
        self.text.model.to(device)
        self.factor = 2 ** (len(self.vae.config.encoder_block_out_channels) - 1)
        self.resolution = int(self.unet.config.sample_size) * self.factor
        self.latent_channels = int(self.vae.config.latent_channels)

    @classmethod
    def load(cls, folder: Path, device: torch.device | None = None) -> Generator:
        """A published folder, on the GPU where there is one."""
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return cls(load_unet(folder).to(device).requires_grad_(False).eval(), folder, device)

    @torch.no_grad()
    def conditions(self, prompts: Sequence[str], sources: Sequence[Image.Image] | None, size: tuple[int, int]) -> Batch:
        """Encode prompts, and sources for edits, as a batch without targets. `size` is (width, height) in pixels."""
        width, height = size
        shape = (len(prompts), self.latent_channels, height // self.factor, width // self.factor)
        blank = torch.zeros(shape, device=self.device)
        if sources is None:
            text, mask = pad(self.text.encode_generate(list(prompts)))
            null = self.text.null_generate()
            null_text, null_mask = pad([null] * len(prompts))
            source_latents = blank
        else:
            pictures = [source.convert("RGB") for source in sources]
            looks = self.text.look(pictures)
            text, mask = pad(self.text.encode_edit(list(prompts), looks))
            null_text, null_mask = pad(self.text.null_edit(looks))
            pixels = [
                to_tensor(np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS))) for picture in pictures
            ]
            source_latents = encode(self.vae, torch.stack(pixels).to(self.device))
        return Batch(
            keys=[""] * len(prompts),
            index=torch.arange(len(prompts)),
            latents=blank,
            source_latents=source_latents,
            is_edit=torch.full((len(prompts),), sources is not None, device=self.device),
            text=text.to(self.device),
            text_mask=mask.to(self.device),
            null_text=null_text.to(self.device),
            null_mask=null_mask.to(self.device),
            time_ids=torch.tensor([[float(width), float(height)]] * len(prompts), device=self.device),
            prompts=list(prompts),
        )

    @torch.no_grad()
    def latents(self, batch: Batch, seeds: Sequence[int], sampling: Sampling) -> Tensor:
        """x0 [B, C, h, w]; the initial noise of row i depends on seeds[i] alone."""
        noise = normals(batch.latents.shape[1:], 0, seeds, "initial noise").to(self.device)
        sigmas = deployment_sigmas(sampling.num_steps, resolution_factor(*batch.latents.shape[2:]))
        field = guided_field(self.unet, batch, sampling.guidance_scale, sampling.image_guidance_scale)
        return sample(field, noise, sigmas)

    def pictures(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: Sampling,
        sources: Sequence[Image.Image] | None = None,
        size: tuple[int, int] | None = None,
    ) -> NDArray[np.uint8]:
        """Pictures uint8 [B, H, W, 3]: generations, or edits of `sources`. `size` is (width, height).

        Raises:
            ValueError: the size is no multiple of twice the VAE's factor.
        """
        width, height = size or (self.resolution, self.resolution)
        unit = 2 * self.factor
        if width % unit or height % unit:
            raise ValueError(f"size {width}x{height}: both sides must be multiples of {unit} pixels")
        batch = self.conditions(prompts, sources, (width, height))
        with torch.no_grad():
            return to_uint8(decode(self.vae, self.latents(batch, seeds, sampling)))
