"""Configuration of an evaluation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dreamline.config import Config, Job
from dreamline.scenes.world import World


class SamplingConfig(Config):
    """How pictures are made. A few-step student needs `num_steps: 4` and both scales 1 (no guidance)."""

    num_steps: int = Field(28, ge=1)
    guidance_scale: float = Field(2.0, ge=0)
    image_guidance_scale: float = Field(1.2, ge=0)


class EvaluationStage(Config):
    """The scene benchmark: prompts and edits that training never saw, judged exactly."""

    name: str = "eval"
    seed: int = 0
    world: World = World()
    num_prompts: int = Field(150, ge=6)
    num_edits: int = Field(150, ge=6)
    batch_size: int = Field(50, ge=1)
    sampling: SamplingConfig = SamplingConfig()
    num_samples: int = Field(
        12, ge=0, description="pictures of each task kept for the report, the same items for every stage"
    )


class EvaluationJob(Job):
    """Input: checkpoint, a diffusers folder."""

    recipe_version: ClassVar[int] = 1

    stage: EvaluationStage
