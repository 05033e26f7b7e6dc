"""Shape of the scene reward network, and how a reward enters a loss."""

from __future__ import annotations

from pydantic import Field, model_validator

from dreamline.config import Config


class SceneRewardConfig(Config):
    """A small network that reads a picture cell by cell and compares it with a prompt."""

    patch: int = Field(4, ge=1, description="stride of the first convolution, px")
    trunk_channels: tuple[int, ...] = Field(
        (48, 96), min_length=1, description="channels after the first convolution and after each halving that follows"
    )
    width: int = Field(96, ge=8, description="width of cell and word tokens")
    num_heads: int = Field(4, ge=1)
    text_layers: int = Field(2, ge=1, description="transformer layers over the words")
    judge_layers: int = Field(2, ge=1, description="transformer layers over the cells, each looking at the words")

    @model_validator(mode="after")
    def _whole_heads(self) -> SceneRewardConfig:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        return self


class RewardTerm(Config):
    """How a reward enters the loss of one task: weight * relu(cap - reward), which pulls only up to the cap.

    Without a cap it is -weight * reward, which pulls for ever.
    """

    weight: float = Field(0.1, ge=0)
    cap: float | None = Field(
        description="no gradient beyond this reward, the guard against reward hacking; null: none"
    )


class RewardTerms(Config):
    """One term per task."""

    generation: RewardTerm = Field(description="reward of generated pictures")
    editing: RewardTerm = Field(description="reward of edited pictures")
