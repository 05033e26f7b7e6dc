"""Euler steps along the learned velocity field."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dreamline.diffusion.flow import x0_from_velocity

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x [B, ...], sigma [B]) -> velocity [B, ...]


def at(sigma: Tensor | float, x: Tensor) -> Tensor:
    """One noise level for a whole batch: [B], float32."""
    return torch.full((x.shape[0],), float(sigma), device=x.device, dtype=torch.float32)


def euler_step(x: Tensor, velocity: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """x at `sigma_next`, from x at `sigma`."""
    return x + (sigma_next - sigma) * velocity


@torch.no_grad()
def roll_to(velocity: Velocity, noise: Tensor, sigmas: Tensor, num_steps: int) -> Tensor:
    """x at sigmas[num_steps], without gradient: the state in which a few-step student meets its next step."""
    x = noise
    for now, after in zip(sigmas[:num_steps].tolist(), sigmas[1 : num_steps + 1].tolist(), strict=True):
        x = euler_step(x, velocity(x, at(now, x)), now, after)
    return x


def sample(velocity: Velocity, noise: Tensor, sigmas: Tensor) -> Tensor:
    """x0 [B, ...] from pure noise, along the decreasing grid `sigmas` [N + 1] that ends in 0; without gradient."""
    return roll_to(velocity, noise, sigmas, len(sigmas) - 1)


def predict_x0(velocity: Velocity, x: Tensor, sigma: float) -> Tensor:
    """One-step estimate of x0, with gradient where the velocity has one."""
    level = at(sigma, x)
    return x0_from_velocity(x, velocity(x, level), level)
