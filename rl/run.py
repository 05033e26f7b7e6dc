"""Run reward fine-tuning: `python -m rl.run --config RUN/config.yaml`."""

from __future__ import annotations

from dreamline.engine.launch import launch, main
from dreamline.result import StageResult
from rl.config import ReFLJob


def run(job: ReFLJob) -> StageResult:
    """The whole stage. The networks are imported by its workers alone."""
    return launch(job, "rl.worker:train")


if __name__ == "__main__":
    main(ReFLJob, run)
