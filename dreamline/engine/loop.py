"""The only training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from dreamline.data.loader import read_ahead
from dreamline.engine.checkpoint import TrainState
from dreamline.engine.config import TrainedStage
from dreamline.engine.ema import EMA
from dreamline.engine.objective import Data, Objective
from dreamline.engine.trainable import Trainable
from dreamline.engine.world import World


@dataclass(frozen=True)
class Stop:
    """Returned by a hook to end the run early."""

    reason: str


Hook = Callable[[TrainState, Mapping[str, float] | None], Stop | None]
Measure = Callable[[int], Mapping[str, float]]  # more metrics at an optimiser step, the same on every worker


def nothing(_: int) -> Mapping[str, float]:
    """Measure nothing."""
    return {}


class Meter:
    """Means of the metrics since they were last read, and where the time went."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.waited = 0.0
        self.started = time.perf_counter()

    def add(self, metrics: Mapping[str, torch.Tensor]) -> None:
        """Count one value of each metric."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self, world: World, num_samples: int) -> dict[str, float]:
        """Means over micro-batches and workers, samples per second, share of the time spent waiting for data."""
        passed = time.perf_counter() - self.started
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        means |= {"samples_per_s": num_samples / passed, "data_wait": self.waited / passed}
        return world.mean(means)


def positions(stage: TrainedStage, world: World, step: int, samples_seen: int) -> Iterator[range]:
    """Global positions of this worker's micro-batches, from one optimiser step to the last."""
    stride = world.size * stage.micro_batch_size
    for start in range(samples_seen, samples_seen + (stage.steps - step) * stage.global_batch_size, stride):
        first = start + world.rank * stage.micro_batch_size
        yield range(first, first + stage.micro_batch_size)


def fit(
    stage: TrainedStage,
    objective: Objective,
    trainables: Mapping[str, Trainable],
    emas: Mapping[str, EMA],
    data: Data,
    state: TrainState,
    world: World,
    log_every: int,
    hooks: Sequence[Hook] = (),
    measure: Measure = nothing,
    ahead: int = 0,
) -> Stop | None:
    """Train from `state` to `stage.steps`; `state` is moved in place.

    `measure` adds to the metrics of each `log_every`-th step. Hooks are called after each optimiser step with the
    state and, at those steps, the metrics (the same ones on every worker), else None. Hooks observe; a hook may return
    `Stop`, on all workers alike. `ahead` micro-batches are read while others are trained on.
    """
    accumulation = stage.accumulation(world.size)
    objective.modules = {name: trainable.forward for name, trainable in trainables.items()}
    meter, logged = Meter(), state.samples_seen
    asked = positions(stage, world, state.step, state.samples_seen)
    with closing(read_ahead(data.batch, asked, workers=min(ahead, 1), ahead=ahead)) as batches:
        while state.step < stage.steps:
            for name, trainable in trainables.items():
                trainable.set_lr(stage.optim_for(name).lr_at(state.step, stage.steps))
            moved = set()
            for micro in range(accumulation):
                begun = time.perf_counter()
                batch = next(batches)
                meter.waited += time.perf_counter() - begun
                for loss in objective.losses(batch, state.step):
                    trainables[loss.module].backward(loss.value)
                    trainables[loss.module].step(last=micro == accumulation - 1)
                    moved.add(loss.module)
                    meter.add(loss.metrics)
            state.step += 1
            state.samples_seen += stage.global_batch_size
            for name in moved & emas.keys():
                emas[name].update(trainables[name].module, state.step)
            metrics = None
            if state.step % log_every == 0 or state.step == stage.steps:
                metrics = {**meter.read(world, state.samples_seen - logged), **measure(state.step)}
                meter, logged = Meter(), state.samples_seen
            for hook in hooks:
                stop = hook(state, metrics)
                if stop is not None:
                    return stop
    return None
