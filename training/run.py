"""Run one flow-matching stage: `python -m training.run --config RUN/config.yaml`."""

from __future__ import annotations

from dreamline.engine.launch import launch, main
from dreamline.result import StageResult
from training.config import TrainJob


def run(job: TrainJob) -> StageResult:
    """The whole stage. The networks are imported by its workers alone."""
    return launch(job, "training.worker:train")


if __name__ == "__main__":
    main(TrainJob, run)
