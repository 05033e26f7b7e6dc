"""Build and load the DreamLite U-Net (diffusers' class)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dreamline.config import ConfigError
from dreamline.model.config import UNetConfig


def build_unet(config: UNetConfig, text_dim: int, latent_channels: int, sample_size: int, seed: int) -> Any:
    """A DreamLiteUNetModel with random weights that depend on `seed` alone.

    Args:
        config: shape of the network.
        text_dim: width of the text encoder's hidden states.
        latent_channels: of the VAE.
        sample_size: side of the target latent, in latent pixels.
        seed: of the initialisation.
    """
    from diffusers import DreamLiteUNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DreamLiteUNetModel(**config.diffusers(text_dim, latent_channels, sample_size))


def build_for(config: UNetConfig, frozen: Path, resolution: tuple[int, int], seed: int) -> Any:
    """A new U-Net that fits the frozen encoders; `resolution` is (width, height) of the pictures in pixels."""
    vae = json.loads((frozen / "vae" / "config.json").read_text())
    text = json.loads((frozen / "text_encoder" / "config.json").read_text())["text_config"]
    factor = 2 ** (len(vae["encoder_block_out_channels"]) - 1)
    return build_unet(config, int(text["hidden_size"]), int(vae["latent_channels"]), max(resolution) // factor, seed)


def load_unet(folder: Path | str) -> Any:
    """The U-Net of a published folder (or the folder of a U-Net itself), float32, safetensors only.

    Raises:
        ConfigError: there is no U-Net in the folder.
    """
    from diffusers import DreamLiteUNetModel

    place = Path(folder)
    place = place / "unet" if (place / "unet").is_dir() else place
    if not (place / "config.json").is_file():
        raise ConfigError(f"{folder}: no U-Net there (unet/config.json); give a diffusers folder")
    unet = DreamLiteUNetModel.from_pretrained(
        place, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    unet.register_to_config(_name_or_path="")  # or the path would be published with the next checkpoint
    return unet
