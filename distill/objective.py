"""DMD2: a few-step student whose pictures a teacher cannot tell from its own."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from distill.config import DMD2Stage
from distill.discriminator import Bottleneck
from distill.losses import discriminator_gan_loss, distribution_matching_loss, generator_gan_loss
from dreamline.data.batch import Batch
from dreamline.diffusion.flow import flow_matching_loss, interpolate, velocity_target, x0_from_velocity
from dreamline.diffusion.randomness import generator, normals, uniforms
from dreamline.diffusion.sampler import at, predict_x0, roll_to
from dreamline.diffusion.timesteps import deployment_sigmas, resolution_factor
from dreamline.engine.objective import Loss
from dreamline.model.conditioning import guided_field, predict_velocity, prompted, velocity_field
from dreamline.rewards.pull import RewardPull


class DMD2:
    """Every step trains the fake score on what the student makes; every `student_every`-th also moves the student.

    The student meets the noise levels that it will be deployed on, in the states that it makes itself (backward
    simulation along the sampler's own grid). The grid step is drawn from (seed, step), the same on every worker.
    """

    def __init__(
        self,
        student: nn.Module,
        fake: nn.Module,
        teacher: nn.Module,
        stage: DMD2Stage,
        discriminator: nn.Module | None = None,
        pull: RewardPull | None = None,
    ) -> None:
        self.modules: MutableMapping[str, nn.Module] = {"student": student, "fake": fake}
        self.teacher, self.stage, self.head, self.pull = teacher, stage, discriminator, pull
        if discriminator is not None:
            self.modules["discriminator"] = discriminator
            self.bottleneck = Bottleneck(teacher)

    def losses(self, batch: Batch, step: int) -> Iterator[Loss]:
        """The student's loss at its turn, then the fake score's, then the discriminator's, which follow the student."""
        first, every = self.stage.regression.steps, self.stage.student_every
        if step < first:
            yield self.regression_loss(batch, step)
            return
        turn = (step - first) % every == every - 1  # the fake score gets to know the student first
        with torch.set_grad_enabled(turn):
            x0 = self.pictures(batch, step)
        if turn:
            yield self.student_loss(batch, x0, step)
        x0 = x0.detach()
        yield self.fake_loss(batch, x0)
        if self.head is not None:
            yield self.discriminator_loss(batch, x0)

    def pictures(self, batch: Batch, step: int) -> Tensor:
        """The student's x0 [B, C, h, w] at one of the steps that are matched."""
        field = velocity_field(self.modules["student"], prompted(batch))
        sigmas, last = self.grid(batch, self.stage.num_steps), self.student_step(step, self.stage.matched_from)
        return predict_x0(field, roll_to(field, self.noise(batch, "picture"), sigmas, last), float(sigmas[last]))

    def regression_loss(self, batch: Batch, step: int) -> Loss:
        """Squared distance to the mean velocity of the teacher's guided path over the same step."""
        stage, conditions, last = self.stage, prompted(batch), self.student_step(step)
        sigmas, substeps = self.grid(batch, stage.num_steps), stage.regression.substeps
        fine = self.grid(batch, stage.num_steps * substeps)[last * substeps : (last + 1) * substeps + 1]
        student = velocity_field(self.modules["student"], conditions)
        with torch.no_grad():
            x = roll_to(student, self.noise(batch, "picture"), sigmas, last)
            guided = guided_field(self.teacher, batch, stage.guidance_scale, stage.image_guidance_scale)
            target = (roll_to(guided, x, fine, substeps) - x) / (fine[-1] - fine[0])
        sigma = at(sigmas[last], x)
        velocity = student(x, sigma)
        loss = flow_matching_loss(velocity, target).mean()
        metrics = {"loss_regression": loss.detach()}
        if last == stage.num_steps - 1 and step < stage.regression.steps:  # later on it is `student_loss` that pulls
            loss, metrics = self.rewarded(loss, metrics, batch, x0_from_velocity(x, velocity, sigma))
        return Loss("student", loss, metrics)

    def rewarded(
        self, loss: Tensor, metrics: dict[str, Tensor], batch: Batch, x0: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the pull of the reward on pictures of the last step, where there is one."""
        if self.pull is None or self.stage.reward is None:
            return loss, metrics
        hinge, judged = self.pull(batch, x0, self.stage.reward)
        return loss + hinge, metrics | judged

    def grid(self, batch: Batch, num_steps: int) -> Tensor:
        """Noise levels [num_steps + 1] on which pictures of this size are made; every n-th one of n times as many."""
        return deployment_sigmas(num_steps, resolution_factor(*batch.latents.shape[2:]))

    def student_step(self, step: int, first: int = 0) -> int:
        """Which of its steps, from `first` on, the student takes with a gradient."""
        return int(generator(self.stage.seed, step, "student step").integers(first, self.stage.num_steps))

    def student_loss(self, batch: Batch, x0: Tensor, step: int) -> Loss:
        """Distribution matching, and where they have a weight regression and the GAN term."""
        stage, conditions = self.stage, prompted(batch)
        sigma = self.sigma(batch, "matching level")
        with torch.no_grad():
            x = interpolate(x0, self.noise(batch, "matching"), sigma)
            guided = guided_field(self.teacher, batch, stage.guidance_scale, stage.image_guidance_scale)
            real_x0 = x0_from_velocity(x, guided(x, sigma), sigma)
            fake_x0 = x0_from_velocity(x, predict_velocity(self.modules["fake"], x, sigma, conditions), sigma)
        loss = distribution_matching_loss(x0, real_x0, fake_x0).mean()
        gap = (fake_x0 - real_x0).square().mean().sqrt() / real_x0.square().mean().sqrt()
        metrics = {"loss": loss.detach(), "critic_gap": gap, "x0_std": x0.detach().std()}
        if stage.regression.weight:
            regression = self.regression_loss(batch, step)
            loss = loss + stage.regression.weight * regression.value
            metrics |= regression.metrics
        if self.student_step(step, stage.matched_from) == stage.num_steps - 1:
            loss, metrics = self.rewarded(loss, metrics, batch, x0)
        if self.head is not None:
            level = self.sigma(batch, "gan level")
            features = self.bottleneck(interpolate(x0, self.noise(batch, "gan"), level), level, conditions)
            # The bare head, frozen: its engine would take this pass for one of its own training steps.
            self.head.requires_grad_(False)
            logits = self.head(features)
            self.head.requires_grad_(True)
            adversarial = generator_gan_loss(logits).mean()
            loss = loss + stage.discriminator.weight * adversarial
            metrics["loss_gan"] = adversarial.detach()
        return Loss("student", loss, metrics)

    def fake_loss(self, batch: Batch, x0: Tensor) -> Loss:
        """Flow matching on the student's pictures."""
        noise, sigma = self.noise(batch, "fake"), self.sigma(batch, "fake level")
        predicted = predict_velocity(self.modules["fake"], interpolate(x0, noise, sigma), sigma, prompted(batch))
        loss = flow_matching_loss(predicted, velocity_target(x0, noise)).mean()
        return Loss("fake", loss, {"loss_fake": loss.detach()})

    def discriminator_loss(self, batch: Batch, x0: Tensor) -> Loss:
        """Tell data from the student's pictures, both with the same noise."""
        conditions, noise, level = prompted(batch), self.noise(batch, "gan"), self.sigma(batch, "gan level")
        with torch.no_grad():
            real = self.bottleneck(interpolate(batch.latents, noise, level), level, conditions)
            fake = self.bottleneck(interpolate(x0, noise, level), level, conditions)
        head = self.modules["discriminator"]
        real_logits, fake_logits = head(torch.cat([real, fake])).chunk(2)
        loss = discriminator_gan_loss(real_logits, fake_logits).mean()
        return Loss("discriminator", loss, {"loss_discriminator": loss.detach()})

    def noise(self, batch: Batch, purpose: str) -> Tensor:
        """Standard normal like the latents, by global sample index."""
        drawn = normals(batch.latents.shape[1:], self.stage.seed, batch.index.tolist(), purpose)
        return drawn.to(batch.latents.device)

    def sigma(self, batch: Batch, purpose: str) -> Tensor:
        """Uniform noise levels [B] by global sample index."""
        low, high = self.stage.sigma_min, self.stage.sigma_max
        drawn = uniforms(self.stage.seed, batch.index.tolist(), purpose).to(batch.latents.device)
        return low + (high - low) * drawn

    def state_dict(self) -> dict[str, Any]:
        """Nothing beside the networks."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing beside the networks."""
