"""Settings that every trained stage has."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from dreamline.config import Config
from dreamline.data.filter import parse_filter


class OptimConfig(Config):
    """AdamW with linear warm-up, a constant part and a linear decay."""

    lr: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0, description="largest L2 norm of the whole gradient")
    warmup_steps: int = Field(0, ge=0)
    decay_from: float = Field(0.6, ge=0, le=1, description="share of the steps after which the rate falls linearly")
    final: float = Field(0.05, ge=0, le=1, description="rate at the last step, in parts of lr")

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of optimiser step `step` (from 0) of `steps`."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        start = self.decay_from * steps
        if step <= start or steps <= start:
            return self.lr
        return self.lr * (1 - (1 - self.final) * (step - start) / (steps - start))


class SigmaConfig(Config):
    """Logit-normal density of the trained noise levels: sigma = sigmoid(mean + std * normal)."""

    mean: float = 0.6
    std: float = Field(1.0, gt=0)


class MixtureComponent(Config):
    """How an input data set takes part: a number is its weight, `{weight: 1, filter: "..."}` has a filter too."""

    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="relative to those of the other data sets")
    filter: str | None = Field(
        None,
        description="expression over the manifest's columns, such as `width >= 512`; without one all samples take part",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_number(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float | str) else value

    @field_validator("filter")
    @classmethod
    def _is_expression(cls, text: str | None) -> str | None:
        if text is not None:
            parse_filter(text)
        return text

    @model_serializer(mode="wrap")
    def _as_short_as_can_be(self, write: SerializerFunctionWrapHandler) -> Any:
        return self.weight if self.filter is None else write(self)


class TrainedStage(Config):
    """What `fit()` and `run_stage` need to know; the base of every trained stage's configuration."""

    name: str
    seed: int = 0
    steps: int = Field(gt=0, description="optimiser steps")
    micro_batch_size: int = Field(gt=0, description="samples per worker in one forward pass")
    global_batch_size: int = Field(gt=0, description="samples per optimiser step over all workers")
    optim: OptimConfig
    ema_decay: float = Field(0.998, ge=0, lt=1, description="of the published weights; 0 publishes the last ones")

    @model_validator(mode="after")
    def _divisible(self) -> TrainedStage:
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is no multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self

    def optim_for(self, module: str) -> OptimConfig:
        """Optimiser settings of one module; stages with several modules override it."""
        return self.optim

    def accumulation(self, world_size: int) -> int:
        """Micro-batches per optimiser step on each worker.

        Raises:
            ValueError: the batch cannot be split evenly over the workers.
        """
        micro, rest = divmod(self.global_batch_size, self.micro_batch_size * world_size)
        if rest or not micro:
            raise ValueError(
                f"stage.global_batch_size {self.global_batch_size} cannot be split over runtime.workers {world_size} "
                f"with stage.micro_batch_size {self.micro_batch_size}; change one of the three"
            )
        return micro


class MixedStage(TrainedStage):
    """A stage that is trained on a mixture of data sets."""

    mixture: dict[str, MixtureComponent] = Field(
        min_length=1, description="the input data sets and their weights, by input name (t2i, edit)"
    )
