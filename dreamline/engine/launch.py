"""Start the workers of a stage: in this process for one worker, through Ray Train for several."""

from __future__ import annotations

import argparse
import importlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dreamline.cluster import connect
from dreamline.config import Job, load
from dreamline.result import StageResult, read_result

J = TypeVar("J", bound=Job)
CONFIG = "config.yaml"


def main(job_class: type[J], run: Callable[[J], StageResult]) -> None:
    """Command line of every room: `--config RUN/config.yaml`; prints where the result lies."""
    parser = argparse.ArgumentParser(description=f"Run one {job_class.__name__} from its resolved configuration.")
    parser.add_argument("--config", required=True, help="RUN/config.yaml")
    result = run(load(job_class, parser.parse_args().config))
    print(f"{result.stage}: {result.run_dir}/result.json", flush=True)


def launch(job: Job, entry: str) -> StageResult:
    """Run a function of the job on every worker and return the result that the first one wrote.

    A job whose result is there already is not run again.

    Args:
        job: what lies in RUN/config.yaml; each worker loads it from there.
        entry: `module:function`, taking the job.

    Raises:
        RuntimeError: the workers ended without a result.
    """
    done = read_result(job.run_dir)
    if done is not None and done.digest == job.digest():
        return done
    if job.runtime.workers == 1:
        _function(entry)(job)
    else:
        _launch_ray(job, entry)
    result = read_result(job.run_dir)
    if result is None:
        raise RuntimeError(f"{job.run_dir}: the workers ended without writing a result; see the log above")
    return result


def _launch_ray(job: Job, entry: str) -> None:
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    private = connect(job.runtime.workers)  # before any import of Ray, which reads its settings then
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    use_gpu = bool(ray.cluster_resources().get("GPU", 0))
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "entry": entry,
            "job": f"{type(job).__module__}:{type(job).__name__}",
            "config": str(Path(job.run_dir).resolve() / CONFIG),
        },
        scaling_config=ScalingConfig(
            num_workers=job.runtime.workers, use_gpu=use_gpu, resources_per_worker={"GPU": 1} if use_gpu else {"CPU": 1}
        ),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        # A name of its own for each attempt: Ray Train would silently resume a finished run of the same name. Our own
        # committed state is what a restarted group of workers resumes from.
        run_config=RunConfig(
            name=f"{job.digest()}-{uuid.uuid4().hex[:8]}",
            storage_path=str(Path(job.run_dir).resolve() / "ray"),
            failure_config=FailureConfig(max_failures=2),
        ),
    )
    try:
        trainer.fit()
    finally:
        if private:
            ray.shutdown()


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _worker(values: dict[str, str]) -> None:
    _function(values["entry"])(load(_function(values["job"]), values["config"]))
