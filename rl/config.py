"""What is computed in this room: reward models."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dreamline.config import Config, Job
from dreamline.engine.config import TrainedStage
from dreamline.rewards.config import SceneRewardConfig


class PreferenceConfig(Config):
    """How preference groups are made from scenes, and how they are weighed."""

    edit_share: float = Field(0.5, ge=0, le=1, description="share of edits among the groups, the rest are generations")
    latent_noise: float = Field(0.15, ge=0, description="largest noise added to latents before they are decoded")
    reading_weight: float = Field(1.0, ge=0, description="weight of reading each cell, beside the ranking loss")


class RewardStage(TrainedStage):
    """Train one reward network for generation and editing."""

    network: SceneRewardConfig = SceneRewardConfig()
    preferences: PreferenceConfig = PreferenceConfig()
    eval_pairs: int = Field(600, ge=1, description="held-out pairs of each task that the accuracy is measured on")


class RewardJob(Job):
    """Job of reward training. Inputs: `encode` (for its frozen folder)."""

    recipe_version: ClassVar[int] = 1

    stage: RewardStage
