"""Start the workers of a stage: in this process for one worker, as a group on Ray for several."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from dreamline.cluster import connect
from dreamline.config import Job, load
from dreamline.engine.group import run_group
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
        config = str(Path(job.run_dir).resolve() / CONFIG)
        private = connect(job.runtime.workers)
        try:
            run_group(_work, (entry, f"{type(job).__module__}:{type(job).__name__}", config), job.runtime.workers)
        finally:
            if private:
                import ray

                ray.shutdown()
    result = read_result(job.run_dir)
    if result is None:
        raise RuntimeError(f"{job.run_dir}: the workers ended without writing a result; see the log above")
    return result


def _work(entry: str, job_class: str, config: str) -> None:
    """On a worker: load the job from its file and hand it to the room's function."""
    _function(entry)(load(_function(job_class), config))


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
