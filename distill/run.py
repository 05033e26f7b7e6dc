"""Run distillation: `python -m distill.run --config RUN/config.yaml`."""

from __future__ import annotations

from distill.config import DMD2Job
from dreamline.engine.launch import launch, main
from dreamline.result import StageResult


def run(job: DMD2Job) -> StageResult:
    """The whole stage. The networks are imported by its workers alone."""
    return launch(job, "distill.worker:train")


if __name__ == "__main__":
    main(DMD2Job, run)
