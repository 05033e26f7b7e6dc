"""ReFL: raise a reward through one late sampling step, held back by a cap and by the pre-training loss."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from torch import Tensor, nn

from dreamline.data.batch import Batch
from dreamline.diffusion.flow import flow_matching_loss, interpolate, velocity_target
from dreamline.diffusion.randomness import generator, normals, uniforms
from dreamline.diffusion.sampler import predict_x0, roll_to
from dreamline.diffusion.timesteps import deployment_sigmas, logit_normal, resolution_factor
from dreamline.engine.objective import Loss
from dreamline.model.conditioning import dropped, guided_field, predict_velocity
from dreamline.rewards.pull import RewardPull
from rl.config import ReFLStage


class ReFL:
    """One loss: capped reward hinge on a generated picture, plus flow matching on the data.

    The regulariser drops prompts and sources as pre-training does, or guidance would drift. The step that carries the
    gradient is drawn from (seed, step), the same on every worker.
    """

    def __init__(self, unet: nn.Module, pull: RewardPull, stage: ReFLStage) -> None:
        self.modules: MutableMapping[str, nn.Module] = {"student": unet}
        self.pull, self.stage = pull, stage

    def losses(self, batch: Batch, step: int) -> Iterator[Loss]:
        """Reward and regulariser of one micro-batch."""
        stage, index = self.stage, batch.index.tolist()
        hinge, judged = self.pull(batch, self.pictures(batch, step), stage)
        noise = normals(batch.latents.shape[1:], stage.seed, index, "noise").to(batch.latents.device)
        level = normals((), stage.seed, index, "sigma").to(batch.latents.device)
        sigma = logit_normal(level, stage.sigma.mean, stage.sigma.std)
        x = interpolate(batch.latents, noise, sigma)
        draw = uniforms(stage.seed, index, "drop").to(batch.latents.device)
        conditions = dropped(batch, draw, stage.text_drop, stage.source_drop)
        predicted = predict_velocity(self.modules["student"], x, sigma, conditions)
        matching = flow_matching_loss(predicted, velocity_target(batch.latents, noise)).mean()

        metrics = {"loss": matching.detach(), **judged}
        yield Loss("student", hinge + stage.flow_matching_weight * matching, metrics)

    def pictures(self, batch: Batch, step: int) -> Tensor:
        """x0 [B, C, h, w] estimated at one random late step, with the gradient of that step alone."""
        stage = self.stage
        height, width = batch.latents.shape[2:]
        sigmas = deployment_sigmas(stage.sampling_steps, resolution_factor(height, width))
        last = int(generator(stage.seed, step, "gradient step").integers(stage.gradient_from, stage.sampling_steps))
        noise = normals(batch.latents.shape[1:], stage.seed, batch.index.tolist(), "picture").to(batch.latents.device)
        field = guided_field(self.modules["student"], batch, stage.guidance_scale, stage.image_guidance_scale)
        return predict_x0(field, roll_to(field, noise, sigmas, last), float(sigmas[last]))

    def state_dict(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing beside the network."""
