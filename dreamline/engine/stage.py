"""`run_stage`: the same steps for every trained stage, on every worker."""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from dreamline.config import Job
from dreamline.engine import checkpoint
from dreamline.engine.checkpoint import TrainState
from dreamline.engine.config import TrainedStage
from dreamline.engine.deepspeed_backend import DeepSpeedTrainable, init_process_group
from dreamline.engine.ema import EMA
from dreamline.engine.loop import Hook, Measure, Stop, fit, nothing
from dreamline.engine.objective import Data, Objective
from dreamline.engine.tracker import Tracker
from dreamline.engine.trainable import LocalTrainable, Trainable
from dreamline.engine.world import World
from dreamline.result import METRICS, write_progress, write_result
from dreamline.storage import write_text

J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Assembly:
    """What a room builds for its stage.

    `publish` writes the outputs below the run folder once the averaged weights are in the modules, and returns more
    metrics; `register` names the output that is a model version. `measure` adds to the curve.
    """

    objective: Objective
    data: Data
    publish: Callable[[Path], Mapping[str, float]]
    outputs: Mapping[str, str]
    averaged: Sequence[str]
    register: str | None = None
    hooks: Sequence[Hook] = field(default_factory=tuple)
    measure: Measure = nothing


def run_stage(job: J, stage: TrainedStage, assemble: Callable[[J, World], Assembly]) -> None:
    """Train one stage: seed, build, wrap, resume, fit, publish, register, write the result. Called on every worker."""
    started = time.time()
    run_dir = Path(job.run_dir)
    torch.set_num_threads(job.runtime.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A guard for debugging that costs a pass over all new memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if job.runtime.backend == "deepspeed":
        init_process_group()
    world = World.here()
    seed_everything(stage.seed)
    assembly = assemble(job, world)
    objective = assembly.objective
    trainables = {name: _wrap(job, stage, name, objective, world) for name in objective.modules}
    emas = {name: EMA(trainables[name].module, stage.ema_decay) for name in assembly.averaged if world.first}
    identity = {**assembly.data.identity, "digest": job.digest(), "world_size": world.size}
    state, newest = TrainState(), checkpoint.latest(run_dir)
    if newest is not None:
        state = checkpoint.load(newest, trainables, emas, objective, identity, world)
    curve = Curve(run_dir, stage, state, world)

    def save(now: TrainState, _: Mapping[str, float] | None = None) -> Stop | None:
        if now.step % job.runtime.checkpoint_every == 0 or now.step == stage.steps:
            checkpoint.save(run_dir, now, trainables, emas, objective, identity, world)
        return None

    with Tracker(job, stage.name, world) as tracker:
        hooks: list[Hook] = [guard, curve, tracker.log, save, *assembly.hooks]
        every, measure, ahead = job.runtime.log_every, assembly.measure, job.runtime.read_ahead
        stop = fit(stage, objective, trainables, emas, assembly.data, state, world, every, hooks, measure, ahead)
        if stop is not None:
            checkpoint.save(run_dir, state, trainables, emas, objective, identity, world)
        if world.first:
            write_progress(run_dir, state.step, stage.steps, "steps", "publish", curve.last)
            for name, ema in emas.items():
                ema.copy_to(trainables[name].module)
            metrics = {**curve.summary(), **assembly.publish(run_dir)}
            version = tracker.register(run_dir / assembly.outputs[assembly.register]) if assembly.register else None
            write_result(
                job,
                stage.name,
                started,
                outputs=dict(assembly.outputs),
                metrics=metrics,
                stop_reason=stop.reason if stop else None,
                mlflow_version=version,
            )
            shutil.rmtree(run_dir / "state", ignore_errors=True)
    world.barrier()


def _wrap(job: Job, stage: TrainedStage, name: str, objective: Objective, world: World) -> Trainable:
    module = objective.modules[name].to(world.device)
    if job.runtime.backend == "deepspeed":
        return DeepSpeedTrainable(module, stage, stage.optim_for(name), world.size)
    return LocalTrainable(module, stage.optim_for(name), stage.accumulation(world.size))


def seed_everything(seed: int) -> None:
    """Seed what draws without being told to; what training draws comes from `dreamline.diffusion.randomness`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def guard(state: TrainState, metrics: Mapping[str, float] | None) -> Stop | None:
    """Fail a run whose loss is no number any more: there is nothing worth publishing. Metrics are equal on all workers.

    Raises:
        FloatingPointError: names the metric and the step.
    """
    wrong = [name for name, value in (metrics or {}).items() if not math.isfinite(value)]
    if wrong:
        raise FloatingPointError(f"{', '.join(wrong)} not finite at step {state.step}; lower the learning rate")
    return None


class Curve:
    """The curve of a run: RUN/metrics.jsonl and RUN/progress.json, written by the first worker."""

    def __init__(self, run_dir: Path, stage: TrainedStage, state: TrainState, world: World) -> None:
        self.path = run_dir / METRICS
        self.stage, self.world, self.run_dir = stage, world, run_dir
        self.rows = [row for row in read_curve(self.path) if row["step"] <= state.step]
        if world.first:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
            write_progress(run_dir, state.step, stage.steps, "steps", "train")

    @property
    def last(self) -> dict[str, float]:
        """The newest row."""
        return self.rows[-1] if self.rows else {}

    def __call__(self, state: TrainState, metrics: Mapping[str, float] | None) -> Stop | None:
        if metrics is None:
            return None
        self.rows.append({"step": state.step, "samples_seen": state.samples_seen, **metrics})
        if self.world.first:
            with self.path.open("a") as file:
                file.write(json.dumps(self.last) + "\n")
            write_progress(self.run_dir, state.step, self.stage.steps, "steps", "train", self.last)
        return None

    def summary(self) -> dict[str, float]:
        """First and last value of every loss, mean speed and data wait, for the result."""
        if not self.rows:
            return {}
        first, last = self.rows[0], self.rows[-1]
        losses = [name for name in last if "loss" in name]
        values = {f"train/{name}_first": first[name] for name in losses if name in first}
        values |= {f"train/{name}": last[name] for name in losses}
        for name in ("samples_per_s", "data_wait"):
            values[f"train/{name}"] = float(np.mean([row[name] for row in self.rows]))
        return values | {"train/steps": last["step"], "train/samples_seen": last["samples_seen"]}


def read_curve(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics.jsonl; a last line cut by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
