"""Configuration of distribution matching distillation."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from dreamline.config import Config, Job
from dreamline.engine.config import MixedStage, OptimConfig
from dreamline.rewards.config import RewardTerms


class DiscriminatorConfig(Config):
    """GAN head on frozen teacher features; `weight` 0 leaves it out."""

    weight: float = Field(0.0, ge=0, description="of the student's GAN loss, beside distribution matching")
    width: int = Field(64, ge=8, description="channels of the head")
    optim: OptimConfig = OptimConfig(lr=4e-4, betas=(0.0, 0.99))


class RegressionConfig(Config):
    """Where the teacher's guided path leads from the student's own states, as a target for the student's next step.

    Alone at first, so that distribution matching begins with a student that has taken the guidance in, then beside it.
    Source: the regression on solved paths of DMD (Yin et al. 2023, equation 9), which DMD2 keeps as a pre-training for
    its fewest steps.
    """

    steps: int = Field(0, ge=0, description="of stage.steps the first ones, for which the student does only this")
    weight: float = Field(0.0, ge=0, description="afterwards, beside distribution matching")
    substeps: int = Field(4, ge=1, description="steps of the teacher to one step of the student")


class DMD2Stage(MixedStage):
    """Improved distribution matching distillation (DMD2; Yin et al. 2024). `optim` is the student's."""

    num_steps: int = Field(4, ge=1, description="sampling steps of the student, on the deployment grid")
    guidance_scale: float = Field(2.0, description="of the teacher, on the text")
    image_guidance_scale: float = Field(1.2, description="of the teacher, on the source of an edit")
    matched_from: int = Field(
        0,
        ge=0,
        description="first step of the student whose pictures are matched; later ones are equally likely. The sampler "
        "goes on from where it is and adds no new noise, so only the last step's picture is what comes out",
    )
    fake_optim: OptimConfig = Field(OptimConfig(lr=4e-4, betas=(0.0, 0.99)), description="of the fake score")
    regression: RegressionConfig = RegressionConfig()
    student_every: int = Field(2, ge=1, description="fake-score steps to one student step (two time scales)")
    sigma_min: float = Field(0.02, gt=0, lt=1, description="lowest noise level at which scores are compared")
    sigma_max: float = Field(0.98, gt=0, lt=1, description="highest noise level at which scores are compared")
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    reward: RewardTerms | None = Field(
        None,
        description="a reward of the student's last step, the picture that comes out; regression and distribution "
        "matching hold it back (DMDR, arXiv 2511.13649). null: none",
    )

    @model_validator(mode="after")
    def _ordered(self) -> DMD2Stage:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min {self.sigma_min} must be below sigma_max {self.sigma_max}")
        if self.matched_from >= self.num_steps:
            raise ValueError(f"matched_from {self.matched_from} must be below num_steps {self.num_steps}")
        if self.regression.steps > self.steps:
            raise ValueError(f"regression.steps {self.regression.steps} must not exceed steps {self.steps}")
        return self

    def optim_for(self, module: str) -> OptimConfig:
        """Student, fake score and discriminator have settings of their own."""
        return {"student": self.optim, "fake": self.fake_optim, "discriminator": self.discriminator.optim}[module]


class DMD2Job(Job):
    """Inputs: frozen, the data sets of `stage.mixture`, init_from (the student's start) and teacher (checkpoints).

    With `stage.reward` also reward, a reward folder.
    """

    recipe_version: ClassVar[int] = 3

    stage: DMD2Stage
