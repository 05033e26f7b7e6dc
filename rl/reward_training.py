"""Train the reward network: `python -m rl.reward_training --config RUN/config.yaml`."""

from __future__ import annotations

from dreamline.engine.launch import launch, main
from dreamline.result import StageResult
from rl.config import RewardJob


def run(job: RewardJob) -> StageResult:
    """The whole stage. The networks are imported by its workers alone."""
    return launch(job, "rl.reward_worker:train")


if __name__ == "__main__":
    main(RewardJob, run)
