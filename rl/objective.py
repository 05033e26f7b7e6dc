"""ReFL: raise a reward through one late sampling step, held back by a cap and by the pre-training loss."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from dreamline.data.batch import Batch
from dreamline.diffusion.flow import flow_matching_loss, interpolate, velocity_target
from dreamline.diffusion.randomness import generator, normals, uniforms
from dreamline.diffusion.sampler import predict_x0, roll_to
from dreamline.diffusion.timesteps import deployment_sigmas, logit_normal, resolution_factor
from dreamline.engine.objective import Loss
from dreamline.model.conditioning import dropped, guided_field, predict_velocity
from dreamline.model.vae import decode
from dreamline.rewards.protocol import Reward
from rl.config import ReFLStage


def capped_hinge(rewards: Tensor, caps: Tensor) -> Tensor:
    """relu(cap - reward) [B]; -reward where the cap is infinite."""
    return torch.where(torch.isinf(caps), -rewards, torch.relu(caps - rewards))


class ReFL:
    """One loss: capped reward hinge on a generated picture, plus flow matching on the data.

    The regulariser drops prompts and sources as pre-training does, or guidance would drift. The step that carries the
    gradient is drawn from (seed, step), the same on every worker.
    """

    def __init__(self, unet: nn.Module, vae: nn.Module, reward: Reward, stage: ReFLStage) -> None:
        self.modules: MutableMapping[str, nn.Module] = {"student": unet}
        self.vae, self.reward, self.stage = vae, reward, stage

    def losses(self, batch: Batch, step: int) -> Iterator[Loss]:
        """Reward and regulariser of one micro-batch."""
        stage, index = self.stage, batch.index.tolist()
        rewards = self.rewards(batch, self.pictures(batch, step))
        terms = [stage.editing if edit else stage.generation for edit in batch.is_edit.tolist()]
        weight = torch.tensor([term.weight for term in terms], device=rewards.device)
        caps = [torch.inf if term.cap is None else term.cap for term in terms]
        hinge = (weight * capped_hinge(rewards, torch.tensor(caps, device=rewards.device))).mean()

        noise = normals(batch.latents.shape[1:], stage.seed, index, "noise").to(batch.latents.device)
        level = normals((), stage.seed, index, "sigma").to(batch.latents.device)
        sigma = logit_normal(level, stage.sigma.mean, stage.sigma.std)
        x = interpolate(batch.latents, noise, sigma)
        draw = uniforms(stage.seed, index, "drop").to(batch.latents.device)
        conditions = dropped(batch, draw, stage.text_drop, stage.source_drop)
        predicted = predict_velocity(self.modules["student"], x, sigma, conditions)
        matching = flow_matching_loss(predicted, velocity_target(batch.latents, noise)).mean()

        metrics = {"loss": matching.detach(), "loss_reward": hinge.detach()}
        for name, rows in (("reward_generation", ~batch.is_edit), ("reward_editing", batch.is_edit)):
            if bool(rows.any()):
                metrics[name] = rewards[rows].detach().mean()
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

    def rewards(self, batch: Batch, latents: Tensor) -> Tensor:
        """Reward [B] of decoded latents; edits are judged against their source."""
        images = (decode(self.vae, latents) + 1) / 2
        rewards = torch.zeros(len(images), device=images.device)
        for rows in ((~batch.is_edit).nonzero().flatten(), batch.is_edit.nonzero().flatten()):
            if len(rows) == 0:
                continue
            prompts = [batch.prompts[row] for row in rows.tolist()]
            sources = None
            if bool(batch.is_edit[rows[0]]):
                with torch.no_grad():
                    sources = (decode(self.vae, batch.source_latents[rows]) + 1) / 2
            rewards = rewards.index_copy(0, rows, self.reward.score(images[rows], prompts, sources).float())
        return rewards

    def state_dict(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing beside the network."""
