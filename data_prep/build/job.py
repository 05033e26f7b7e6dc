"""A build as a Ray job of a flow.

python -m data_prep.build.job --config RUN/config.yaml
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from data_prep.build.config import BuildJob
from data_prep.build.progress import Step
from data_prep.build.run import run_build
from data_prep.build.track import track
from dreamline.config import load
from dreamline.result import StageResult, write_progress, write_result
from dreamline.storage import write_json

SUMMARY = "summary.json"


def run(job: BuildJob) -> StageResult:
    """Carry out a build; one that is done is found done, whoever did it."""
    started = time.time()

    def say(step: Step) -> None:
        print(step.text, flush=True)
        if step.total:
            write_progress(job.run_dir, step.done, step.total, step.unit, step.text)

    outcome = run_build(job.stage, say)
    track(outcome, job.stage)
    summary = outcome.summary()
    write_json(Path(job.run_dir) / SUMMARY, summary)
    metrics = {name: float(value) for name, value in summary.items() if isinstance(value, int)}
    return write_result(job, "build", started, outputs={"summary": SUMMARY}, metrics=metrics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run one build from its resolved configuration.")
    parser.add_argument("--config", required=True, help="RUN/config.yaml")
    result = run(load(BuildJob, parser.parse_args().config))
    print(f"{result.stage}: {result.run_dir}/result.json", flush=True)
