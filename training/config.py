"""Configuration of flow-matching training: T2I, edit, joint and SFT are four YAML files of this one schema."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dreamline.config import Job
from dreamline.engine.config import MixedStage, SigmaConfig
from dreamline.model.config import UNetConfig


class TrainStage(MixedStage):
    """One flow-matching stage."""

    model: UNetConfig = Field(UNetConfig(), description="network to build when there is no init_from")
    sigma: SigmaConfig = SigmaConfig()
    text_drop: float = Field(0.1, ge=0, le=1, description="share of samples with the empty prompt")
    foreground_threshold: float | None = Field(
        None, gt=0, description="latent difference from which a place counts as edited and weighs more; null: all alike"
    )
    source_drop: float = Field(0.05, ge=0, le=1, description="share with neither prompt nor source")


class TrainJob(Job):
    """Inputs: frozen, the data sets of `stage.mixture`, and perhaps init_from (another stage's checkpoint)."""

    recipe_version: ClassVar[int] = 1

    stage: TrainStage
