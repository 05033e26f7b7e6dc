"""Planning a build as one stage, and carrying it out as a flow. Prefect is imported once its server is there."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from data_prep.build.config import BuildConfig, BuildJob
from dreamline.config import Runtime
from dreamline.result import RESULT
from flows.config import ClusterConfig, PipelineConfig
from flows.display import Display
from flows.launch import Stopped
from flows.run import in_thread, stopped_by_signals
from flows.session import open_session
from flows.stages import Plan, PlannedStage

BUILD = "build"
MODULE = "data_prep.build.job"


def plan_build(config: BuildConfig, workspace: Path, cluster: ClusterConfig | None = None) -> Plan:
    """A plan of one stage: everything of it lies in `workspace/data-<name>`, but for the data set itself."""
    preset = f"data-{config.name}"
    runtime = Runtime(workers=config.num_workers, tracking_uri=config.tracking_uri)
    job = BuildJob(preset=preset, run_dir="", runtime=runtime, stage=config)
    run_dir = workspace.resolve() / preset / "runs" / BUILD / f"{config.name}-{job.digest()}"
    job = job.model_copy(update={"run_dir": str(run_dir)})
    pipeline = PipelineConfig(cluster=cluster or ClusterConfig(cpus=config.num_workers))
    stages = {BUILD: PlannedStage(BUILD, MODULE, job, {})}
    return Plan(preset, workspace.resolve(), pipeline, config.tracking_uri, stages)


def run_data_flow(plan: Plan, display: Display) -> dict[str, Any]:
    """Carry out the flow on a Prefect server and a Ray head of its own, or on those of the plan.

    Raises:
        Stopped: the user stopped it.
        StageFailed, ClusterLost, StateUnknown, ClusterError, Busy: see `session` and `launch`.
    """
    (plan.stages[BUILD].run_dir / RESULT).unlink(missing_ok=True)  # sources may have grown; a build knows best
    stop = threading.Event()
    found: list[dict[str, Any]] = []
    with stopped_by_signals(stop, display), display:
        try:
            with open_session(plan, display, stop):
                if not stop.is_set():
                    in_thread(lambda: found.append(_flow(plan.preset)))
        except Exception:
            if not stop.is_set():  # else the error comes from the stop
                raise
    if stop.is_set():
        raise Stopped(f"{plan.preset}: stopped; the same command goes on from here")
    return found[0]


def _flow(name: str) -> dict[str, Any]:
    from flows.data_flow import data_build

    return data_build(name)


def show(as_json: bool) -> Display:
    """What the command line shows while it waits."""
    return Display(1, sys.stderr if as_json else sys.stdout)
