"""GAN head that reads the frozen teacher's bottleneck."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dreamline.diffusion.sampler import at
from dreamline.model.conditioning import Conditions, predict_velocity


class Bottleneck:
    """Mid-block features of a frozen U-Net for a noised picture; gradients reach the picture."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet
        self.seen: Tensor | None = None
        unet.mid_block.register_forward_hook(self._keep)  # type: ignore[union-attr]
        config: Any = unet.config
        self.channels = int(config.block_out_channels[-1])

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen = output

    def __call__(self, x: Tensor, sigma: Tensor | float, conditions: Conditions) -> Tensor:
        """[B, C, h, w] at `sigma` -> [B, channels, h', w'] of the target half."""
        level = sigma if isinstance(sigma, Tensor) else at(sigma, x)
        predict_velocity(self.unet, x, level, conditions)
        features, self.seen = self.seen, None
        assert features is not None
        return features[..., : features.shape[3] // 2]


class Discriminator(nn.Module):
    """Small convolutional head: features [B, C, h, w] -> one logit per place [B, h, w]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return torch.squeeze(self.layers(features), 1)
