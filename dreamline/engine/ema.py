"""Exponential moving average of one module's weights: what is published."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Shadow weights, updated after each optimiser step: shadow = decay * shadow + (1 - decay) * weight.

    Early steps use the smaller decay (1 + step) / (10 + step), so that the start does not linger.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().float().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Follow the module after optimiser step number `step` (from 1)."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in module.named_parameters():
            self.shadow[name].lerp_(value.detach().float(), weight)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by parameter name."""
        return self.shadow

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore.

        Raises:
            KeyError: a weight is missing.
        """
        for name, value in self.shadow.items():
            value.copy_(state[name])

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the averaged weights into a module."""
        for name, value in module.named_parameters():
            value.copy_(self.shadow[name])
