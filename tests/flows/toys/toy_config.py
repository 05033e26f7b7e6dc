"""A job that takes a moment and then does as it is told, and a pipeline of such jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dreamline.config import Config, Input, Job
from flows.config import PipelineConfig
from flows.stages import PLANTED, STAGES, Plan, PlannedStage, evaluation_of

Action = Literal["succeed", "wait", "fail_once", "die_once", "linger", "diverge"]
EVALUATED = ("t2i", "dmd2")  # fewer than in a real pipeline, to be quick


class ToyStage(Config):
    """`wait` waits for a file `go`, `linger` falls over behind its result, `diverge` publishes an infinite loss."""

    name: str = "toy"
    action: Action = "succeed"


class ToyJob(Job):
    """No network, no data."""

    stage: ToyStage = ToyStage()


def toy_plan(workspace: Path, actions: dict[str, Action]) -> Plan:
    """The real graph with a toy at every node."""
    stages: dict[str, PlannedStage] = {}
    nodes = [node for stage in STAGES if stage.name not in PLANTED for node in (stage, evaluation_of(stage.name))]
    for node in nodes:
        if node.name.startswith("eval-") and node.name.removeprefix("eval-") not in EVALUATED:
            continue
        sources = {name: source.partition(".")[0] for name, source in node.inputs.items()}
        inputs = {name: Input(path="", digest=stages[source].digest) for name, source in sources.items()}
        stage = ToyStage(name=node.name, action=actions.get(node.name, "succeed"))
        job = ToyJob(preset="toy", run_dir="", inputs=inputs, stage=stage)
        run_dir = workspace / "toy" / "runs" / node.name / f"toy-{job.digest()}"
        job = job.model_copy(update={"run_dir": str(run_dir)})
        stages[node.name] = PlannedStage(node.name, "toy_stage", job, node.inputs)
    return Plan("toy", workspace, PipelineConfig(), None, stages)
