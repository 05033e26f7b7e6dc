"""Training of the tiny VAE on scenes: pictures to small latents and back (the demo: 32 px to 4x4x8)."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from dreamline.model.vae import decode, encode, to_tensor, to_uint8
from dreamline.scenes.detector import detect_many
from dreamline.scenes.render import render
from dreamline.scenes.sampling import rng_for, sample_scene
from dreamline.scenes.world import Scene, Split, World
from training.encoders.config import VAEConfig

LATENT_NOISE = 0.06  # standard deviation added in training, so that the decoder forgives small errors of the U-Net
WARMUP = 100  # steps


def build_vae(config: VAEConfig) -> AutoencoderTiny:
    """The untrained VAE: the demo's has four levels (factor 8), 8 latent channels and 0.3 million parameters."""
    widths = (config.width,) * len(config.encoder_blocks)
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=config.encoder_blocks,
        num_decoder_blocks=config.decoder_blocks,
        latent_channels=config.latent_channels,
        scaling_factor=1.0,
    )


def train_vae(
    world: World, config: VAEConfig, steps: int, seed: int, num_train: int = 8000, num_eval: int = 600
) -> tuple[Any, dict[str, float]]:
    """Train from random weights.

    Returns:
        The VAE, and what `measure_vae` says of it on evaluation scenes, with the CPU seconds of the training.
    """
    torch.manual_seed(seed)
    vae = build_vae(config)
    begin = time.process_time()
    pictures, _ = draw(world, "train", num_train, seed, config.num_objects)
    fit_vae(vae, pictures, config, steps, seed)
    seconds = time.process_time() - begin
    return vae, {**measure_vae(vae, world, num_eval, seed + 1), "cpu_seconds": round(seconds, 1)}


def fit_vae(vae: Any, pictures: Tensor, config: VAEConfig, steps: int, seed: int) -> None:
    """Train in place on pictures [N, 3, H, W].

    Loss: L1 + 2 L2, five times on and around objects, and a term that keeps latents at mean 0 and variance 1 (the
    stock pipelines do not scale latents).
    """
    layout = torch.channels_last if config.bfloat16_share else torch.contiguous_format
    vae.to(memory_format=layout)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=config.lr, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(seed)
    begin, recent = time.process_time(), 0.0
    for step in range(steps):
        rate = config.lr * min(1, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = pictures[torch.randint(len(pictures), (config.batch_size,), generator=generator)]
        with torch.autocast("cpu", torch.bfloat16, enabled=step < config.bfloat16_share * steps):
            latents = encode(vae, batch.contiguous(memory_format=layout)).float()
            noisy = latents + LATENT_NOISE * torch.randn(latents.shape, generator=generator)
            rebuilt = vae.decode(noisy).sample
        error = rebuilt.float() - batch
        weight = 1 + 4 * _foreground(batch)
        loss = (weight * error.abs()).mean() + 2 * (weight * error.square()).mean()
        loss = loss + 0.02 * (latents.mean().square() + latents.var().log().square())
        optimiser.zero_grad()
        loss.backward()
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(vae.parameters(), config.clip_norm)
        optimiser.step()
        recent = loss.item() if step == 0 else 0.99 * recent + 0.01 * loss.item()
        if step % 500 == 499:
            print(f"vae step {step + 1} loss {recent:.4f} cpu {time.process_time() - begin:.0f} s", flush=True)
    vae.to(memory_format=torch.contiguous_format)


@torch.no_grad()
def measure_vae(vae: Any, world: World, count: int, seed: int) -> dict[str, float]:
    """Reconstructions of evaluation scenes: PSNR in dB, share that the detector reads back exactly, latent scale."""
    pictures, scenes = draw(world, "eval", count, seed)
    latents = encode(vae, pictures)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    rebuilt = decode(vae, latents)
    return {
        "psnr": round(10 * math.log10(4 / F.mse_loss(rebuilt, pictures).item()), 2),
        "detected": _detected(rebuilt, scenes, world),
        "detected_with_noise_0.1": _detected(decode(vae, latents + 0.1 * noise), scenes, world),
        "latent_mean": round(latents.mean().item(), 4),
        "latent_std": round(latents.std().item(), 4),
    }


def draw(
    world: World,
    split: Split,
    count: int,
    seed: int,
    num_objects: tuple[int, int] | None = None,
) -> tuple[Tensor, list[Scene]]:
    """Random scenes and their pictures [N, 3, H, W] in [-1, 1]."""
    scenes = [sample_scene(world, rng_for(seed, index, "vae"), split, num_objects) for index in range(count)]
    return to_tensor(np.stack([render(scene, world) for scene in scenes])), scenes


def _detected(images: Tensor, scenes: list[Scene], world: World) -> float:
    found = detect_many(to_uint8(images), world)
    return sum(a == b for a, b in zip(found, scenes, strict=True)) / len(scenes)


def _foreground(images: Tensor) -> Tensor:
    """1 on objects and one pixel around them, [B, 1, H, W]; the corner pixel is background."""
    differs = (images - images[:, :, :1, :1]).abs().amax(1, keepdim=True) > 0.2
    return F.max_pool2d(differs.float(), 3, 1, 1)
