"""Rectified flow between data and noise: x_sigma = (1 - sigma) x0 + sigma noise, velocity = noise - x0.

sigma in [0, 1]; sigma = 1 is pure noise. Source: Liu et al. 2022 (rectified flow), in the sign that DreamLite uses.
"""

from __future__ import annotations

import torch
from torch import Tensor


def expand(sigma: Tensor, like: Tensor) -> Tensor:
    """Shape [B] -> [B, 1, ..., 1], so that it multiplies `like` [B, ...]."""
    return sigma.to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))


def interpolate(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Point on the straight path from `x0` (sigma 0) to `noise` (sigma 1); all [B, ...], sigma [B]."""
    weight = expand(sigma, x0)
    return (1 - weight) * x0 + weight * noise


def velocity_target(x0: Tensor, noise: Tensor) -> Tensor:
    """d x_sigma / d sigma."""
    return noise - x0


def x0_from_velocity(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The data end of the path through `x` at `sigma` with this velocity."""
    return x - expand(sigma, x) * velocity


def foreground_weight(x0: Tensor, source: Tensor, threshold: float) -> Tensor:
    """Weight [B, 1, H, W] that makes up for the small area of a local edit: log2(all / edited) + 1 on edited places.

    A place is edited where target and source [B, C, H, W] differ by more than `threshold` (root mean square over the
    channels). The weight is 1 elsewhere, and everywhere for a pair without any difference. Source: the
    foreground-emphasis loss of DreamLite, w(x) = log2(x) + 1, in the form of UniWorld-V1.
    """
    edited = (x0 - source).float().square().mean(dim=1, keepdim=True).sqrt() > threshold
    share = edited.float().mean(dim=(2, 3), keepdim=True)
    weight = torch.where(edited, 1 - torch.log2(share), torch.ones_like(share))
    return torch.where(share > 0, weight, torch.ones_like(weight))


def flow_matching_loss(predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error of a velocity per sample, [B, C, H, W] -> [B]; `weight` [B, 1, H, W] emphasises places."""
    error = (predicted.float() - target.float()).square()
    if weight is not None:
        error = error * weight
    return torch.flatten(error, 1).mean(1)
