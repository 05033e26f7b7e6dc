"""The losses of DMD2, written from the equations: tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def distribution_matching_loss(x0: Tensor, real_x0: Tensor, fake_x0: Tensor) -> Tensor:
    """Loss per sample whose gradient in `x0` is the difference of the two scores, in x0 space.

    gradient = (fake_x0 - real_x0) / mean |x0 - real_x0|, the normaliser per sample and in float64.
    Source: Yin et al. 2023 (DMD), equations 7 and 8; Yin et al. 2024 (DMD2).

    Args:
        x0: what the student made, [B, C, H, W], with gradient.
        real_x0: the teacher's estimate of x0 from a noised `x0`.
        fake_x0: the fake score's estimate from the same point.

    Returns:
        [B]; the mean over the elements of half the squared distance to the moved x0.
    """
    with torch.no_grad():
        exact, real, fake = x0.double(), real_x0.double(), fake_x0.double()
        normaliser = torch.flatten((exact - real).abs(), 1).mean(1).clamp_min(1e-6).reshape(-1, 1, 1, 1)
        moved = (exact - (fake - real) / normaliser).to(x0.dtype)
    return 0.5 * torch.flatten((x0.float() - moved.float()).square(), 1).mean(1)


def generator_gan_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss per logit: small where the discriminator takes the picture for real."""
    return softplus(-fake_logits)


def discriminator_gan_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Loss per logit pair: real ones up, fake ones down."""
    return softplus(-real_logits) + softplus(fake_logits)
