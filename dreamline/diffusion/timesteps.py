"""Which noise levels are trained on, and on which ones a picture is made."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def logit_normal(normal: Tensor, mean: float, std: float) -> Tensor:
    """sigma = sigmoid(mean + std * normal), in (0, 1). Source: Esser et al. 2024 (SD3), section 3.1."""
    return torch.sigmoid(mean + std * normal)


def shift(sigma: Tensor, factor: float) -> Tensor:
    """Move noise levels towards noise: factor * s / (1 + (factor - 1) * s); factor 1 changes nothing."""
    return factor * sigma / (1 + (factor - 1) * sigma)


def resolution_factor(
    height: int,
    width: int,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
    base_len: int = 256,
    max_len: int = 4096,
) -> float:
    """Shift factor e^mu of a latent of `height` x `width` cells; mu is linear in the number of 2x2 patches.

    Source: the dynamic shift of the DreamLite pipelines (target half only).
    """
    slope = (max_shift - base_shift) / (max_len - base_len)
    return math.exp(slope * (height * width // 4 - base_len) + base_shift)


def deployment_sigmas(num_steps: int, factor: float) -> Tensor:
    """The grid on which the stock pipelines sample: [num_steps + 1], from 1 to 0, shifted by `factor`."""
    linear = torch.linspace(1.0, 1.0 / num_steps, num_steps, dtype=torch.float64)
    return torch.cat([shift(linear, factor), torch.zeros(1, dtype=torch.float64)]).float()
