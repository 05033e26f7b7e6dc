"""A module with its optimiser: the only thing that knows how a gradient becomes a step."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from dreamline.engine.config import OptimConfig


class Trainable(Protocol):
    """One module that takes steps of its own."""

    module: nn.Module  # the bare module: weights to publish
    forward: nn.Module  # what objectives call

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of one micro-batch."""
        ...

    def step(self, last: bool) -> None:
        """After each micro-batch; the weights move at the `last` one of an optimiser step."""
        ...

    def set_lr(self, lr: float) -> None:
        """Learning rate of the coming step."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimiser state; every worker calls it."""
        ...

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, bit for bit; every worker calls it."""
        ...


def adamw(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    """The optimiser of every stage."""
    return torch.optim.AdamW(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


class LocalTrainable:
    """Plain torch, one worker: trains on a bare machine, and is the reference for the DeepSpeed backend."""

    def __init__(self, module: nn.Module, config: OptimConfig, accumulation: int) -> None:
        self.module = self.forward = module
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = adamw(self.parameters, config)
        self.clip_norm = config.clip_norm
        self.accumulation = accumulation

    def backward(self, loss: Tensor) -> None:
        (loss / self.accumulation).backward()  # type: ignore[no-untyped-call]

    def step(self, last: bool) -> None:
        if not last:
            return
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, folder / "local.pt")

    def load(self, folder: Path) -> None:
        state = torch.load(folder / "local.pt", weights_only=True, map_location="cpu")
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
