"""The frozen tiny VAE: pictures to latents and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dreamline.config import ConfigError


def load_vae(folder: Path | str) -> Any:
    """The AutoencoderTiny of a folder with a `vae/`, float32, frozen.

    Raises:
        ConfigError: there is no VAE in the folder.
    """
    from diffusers import AutoencoderTiny

    place = Path(folder) / "vae"
    if not (place / "config.json").is_file():
        raise ConfigError(f"{folder}: no VAE there (vae/config.json)")
    vae = AutoencoderTiny.from_pretrained(place, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True)
    return vae.requires_grad_(False).eval()


def encode(vae: Any, images: Tensor) -> Tensor:
    """[B, 3, H, W] in [-1, 1] -> latents [B, C, H / f, W / f], as the stock pipelines do it (no scaling)."""
    latents: Tensor = vae.encode(images).latents
    return latents


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents -> pictures [B, 3, H, W], clamped to [-1, 1]; differentiable.

    The gradient passes the clamp: an area that overshoots could never be corrected otherwise.
    """
    images: Tensor = vae.decode(latents).sample
    clamped = images.clamp(-1, 1)
    return clamped.detach() + (images - images.detach()) if images.requires_grad else clamped


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] or [B, H, W, 3] -> float32 in [-1, 1], channels before rows."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3))).float() / 127.5 - 1


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """[B, 3, H, W] in [-1, 1] -> uint8 [B, H, W, 3]."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return array
