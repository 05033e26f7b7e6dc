"""What each worker of the stage builds and trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dreamline.engine.data import StageData
from dreamline.engine.stage import Assembly, run_stage
from dreamline.engine.world import World
from dreamline.model.folder import publish_pipeline
from dreamline.model.unet import build_for, load_unet
from training.config import TrainJob
from training.objective import FlowMatching


def assemble(job: TrainJob, world: World) -> Assembly:
    """Network, data and objective of a stage."""
    data = StageData(job, job.stage, world)
    frozen = job.input("frozen")
    if "init_from" in job.inputs:
        unet = load_unet(job.input("init_from"))
    else:
        unet = build_for(job.stage.model, frozen, data.resolution, job.stage.seed)

    def publish(run_dir: Path) -> Mapping[str, float]:
        publish_pipeline(unet, frozen, run_dir / "checkpoint", mobile=False)
        return {}

    return Assembly(
        FlowMatching(unet, job.stage),
        data,
        publish,
        outputs={"checkpoint": "checkpoint"},
        averaged=["student"],
        register="checkpoint",
    )


def train(job: TrainJob) -> None:
    """One worker's part."""
    run_stage(job, job.stage, assemble)
