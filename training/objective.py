"""Flow matching on a mixture of generation and editing."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from dreamline.data.batch import Batch
from dreamline.diffusion.flow import flow_matching_loss, foreground_weight, interpolate, velocity_target
from dreamline.diffusion.randomness import normals, uniforms
from dreamline.diffusion.timesteps import logit_normal
from dreamline.engine.objective import Loss
from dreamline.model.conditioning import dropped, predict_velocity
from training.config import TrainStage


class FlowMatching:
    """Regress the velocity of the target half; prompts and sources are dropped as the three guidance branches need."""

    def __init__(self, unet: nn.Module, stage: TrainStage) -> None:
        self.modules: MutableMapping[str, nn.Module] = {"student": unet}
        self.stage = stage

    def losses(self, batch: Batch, step: int) -> Iterator[Loss]:
        """One loss; all draws depend on (seed, global sample index) alone."""
        index, seed, device = batch.index.tolist(), self.stage.seed, batch.latents.device
        noise = normals(batch.latents.shape[1:], seed, index, "noise").to(device)
        level = normals((), seed, index, "sigma").to(device)
        sigma = logit_normal(level, self.stage.sigma.mean, self.stage.sigma.std)
        draw = uniforms(seed, index, "drop").to(device)
        conditions = dropped(batch, draw, self.stage.text_drop, self.stage.source_drop)
        x = interpolate(batch.latents, noise, sigma)
        predicted = predict_velocity(self.modules["student"], x, sigma, conditions)
        losses = flow_matching_loss(predicted, velocity_target(batch.latents, noise), self.weight(batch))
        yield Loss("student", losses.mean(), task_means(losses, batch.is_edit))

    def weight(self, batch: Batch) -> Tensor | None:
        """Emphasis [B, 1, h, w] on what an edit changes; 1 for generations."""
        if self.stage.foreground_threshold is None:
            return None
        weight = foreground_weight(batch.latents, batch.source_latents, self.stage.foreground_threshold)
        return torch.where(batch.is_edit[:, None, None, None], weight, torch.ones_like(weight))

    def state_dict(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing beside the network."""


def task_means(losses: Tensor, is_edit: Tensor) -> dict[str, Tensor]:
    """`loss`, and `loss_t2i` / `loss_edit` where the batch has samples of the task; all detached."""
    losses = losses.detach()
    means = {"loss": losses.mean()}
    for name, rows in (("loss_t2i", ~is_edit), ("loss_edit", is_edit)):
        if bool(rows.any()):
            means[name] = losses[rows].mean()
    return means
