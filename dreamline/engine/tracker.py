"""Curves and checkpoints of a stage in MLflow, when the job names an address."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from dreamline.config import Job
from dreamline.engine.checkpoint import TrainState
from dreamline.engine.loop import Stop
from dreamline.engine.world import World
from dreamline.result import git_commit


class Tracker:
    """One MLflow run per attempt, written by the first worker; without an address it does nothing."""

    def __init__(self, job: Job, stage: str, world: World) -> None:
        self.job, self.stage = job, stage
        self.uri = job.runtime.tracking_uri if world.first else None
        self.run: Any = None

    def __enter__(self) -> Tracker:
        if self.uri is not None:
            from dreamline import tracking

            self.run = tracking.start_run(
                self.uri,
                experiment=f"dreamline-{self.job.preset}",
                name=f"{self.stage}-{self.job.digest()}",
                tags={"stage": self.stage, "digest": self.job.digest(), "commit": git_commit()},
                params=self.job.stage.model_dump(mode="json"),
            )
            tracking.log_datasets(self.run, self.job)
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self.run is not None:
            from dreamline import tracking

            tracking.end_run(self.run, failed=kind is not None)

    def log(self, state: TrainState, metrics: Mapping[str, float] | None) -> Stop | None:
        """Hook of `fit()`."""
        if self.run is not None and metrics is not None:
            from dreamline import tracking

            tracking.log_metrics(self.run, metrics, state.step)
        return None

    def register(self, checkpoint: Path) -> str | None:
        """Register a published checkpoint as a version of the model; the version, or None without an address."""
        if self.uri is None:
            return None
        from dreamline import tracking

        return tracking.register(self.uri, checkpoint, self.stage, self.job, self.run)
