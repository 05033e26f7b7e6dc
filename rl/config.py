"""What is computed in this room: reward models, and models that follow them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from dreamline.config import Config, Job
from dreamline.engine.config import MixedStage, SigmaConfig, TrainedStage
from dreamline.rewards.config import RewardTerms, SceneRewardConfig
from dreamline.scenes.world import World


class PreferenceConfig(Config):
    """How preference groups are made from scenes, and how they are weighed."""

    edit_share: float = Field(0.5, ge=0, le=1, description="share of edits among the groups, the rest are generations")
    decoded_share: float = Field(
        0.2, ge=0, le=1, description="share of the groups that pass through the VAE, the slow part"
    )
    latent_noise: float = Field(0.15, ge=0, description="largest noise added to latents before they are decoded")
    reading_weight: float = Field(1.0, ge=0, description="weight of reading each cell, beside the ranking loss")
    guessing_weight: float = Field(0.2, ge=0, description="weight of guessing hidden cells from the prompt")
    anchor_weight: float = Field(
        0.5, ge=0, description="weight of telling right from wrong on one scale for all prompts"
    )


class RewardStage(TrainedStage):
    """Train one reward network for generation and editing."""

    world: World = World()
    network: SceneRewardConfig = SceneRewardConfig()
    preferences: PreferenceConfig = PreferenceConfig()
    num_eval: int = Field(600, ge=1, description="held-out groups of each task that the accuracy is measured on")


class RewardJob(Job):
    """Input: frozen, for its VAE. Preferences are drawn from the scene world itself."""

    recipe_version: ClassVar[int] = 1

    stage: RewardStage


class ProbeConfig(Config):
    """Pictures made during training that the reward and the exact judge of the scene world both look at."""

    every: int = Field(
        20, ge=1, description="optimiser steps from one look to the next, a multiple of runtime.log_every"
    )
    num_items: int = Field(96, ge=6, description="prompts, and as many edits; none is in the training split")
    seed: int = Field(1, description="of the items; the final evaluation has 0")
    world: World = World()
    num_steps: int = Field(10, ge=1)
    guidance_scale: float = Field(1.5, ge=0)
    image_guidance_scale: float = Field(1.0, ge=0)


class ReFLStage(MixedStage, RewardTerms):
    """Reward fine-tuning by back-propagation through one late sampling step (ReFL; Xu et al. 2023, algorithm 1)."""

    sampling_steps: int = Field(8, ge=2, description="steps of the grid on which pictures are made")
    gradient_from: int = Field(
        4, ge=0, description="first grid step that may carry the gradient; later ones are equally likely"
    )
    guidance_scale: float = Field(
        1.0, ge=0, description="of these pictures, costs a second pass; 1 is none, as in the original method"
    )
    image_guidance_scale: float = Field(1.0, ge=0, description="of the pictures of edits; not 1 costs a third pass")
    flow_matching_weight: float = Field(1.0, ge=0, description="weight of the pre-training loss, the regulariser")
    sigma: SigmaConfig = SigmaConfig()
    text_drop: float = Field(0.1, ge=0, le=1, description="of the regulariser: share of samples with the empty prompt")
    source_drop: float = Field(0.05, ge=0, le=1, description="of the regulariser: share without prompt and source")
    start_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight of the starting network in the published one, their weighted mean: a guard against drift",
    )
    probe: ProbeConfig | None = Field(None, description="compare the reward with the truth during training")

    @model_validator(mode="after")
    def _late_step_exists(self) -> ReFLStage:
        if self.gradient_from >= self.sampling_steps:
            raise ValueError(f"gradient_from {self.gradient_from} must be below sampling_steps {self.sampling_steps}")
        return self


class ReFLJob(Job):
    """Inputs: frozen, the data sets of `stage.mixture`, init_from (a checkpoint) and reward (a reward folder)."""

    recipe_version: ClassVar[int] = 1

    stage: ReFLStage
