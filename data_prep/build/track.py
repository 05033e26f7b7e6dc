"""A version of a data set in MLflow: an input of a run, with its fingerprint, its place and its numbers."""

from __future__ import annotations

import re

from data_prep.build.config import BuildConfig
from data_prep.build.report import summarise
from data_prep.build.run import Outcome
from dreamline.data.manifest import DATASET
from dreamline.tracking import end_run, log_dataset, log_metrics, start_run

EXPERIMENT = "data"


def track(outcome: Outcome, config: BuildConfig) -> None:
    """Log a build as a run of the experiment `data`; nothing happens where no MLflow address is configured."""
    if config.tracking_uri is None:
        return
    info, uri = outcome.info, f"{outcome.location}/{DATASET}"
    tags = {"digest": info.fingerprint, "dataset": info.name}
    run = start_run(config.tracking_uri, EXPERIMENT, info.name, tags, {"build": outcome.increment.config})
    numbers = summarise(info)
    log_dataset(run, info.name, info.fingerprint, uri, numbers)
    counts = {name: value for name, value in outcome.summary().items() if isinstance(value, int)}
    reasons = {f"rejected/{re.sub(r'[^A-Za-z0-9_]', '_', name)}": n for name, n in outcome.increment.rejected.items()}
    log_metrics(run, {**counts, **reasons}, step=len(info.increments))
    end_run(run)
