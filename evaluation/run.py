"""Run the scene benchmark on a checkpoint: `python -m evaluation.run --config RUN/config.yaml`."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path

from dreamline.cluster import map_tasks
from dreamline.engine.launch import main
from dreamline.result import StageResult, read_result, write_progress, write_result
from dreamline.storage import publish_folder, write_text
from evaluation.config import EvaluationJob
from evaluation.scenes import Judged, chunks_of, judge, summarise, write_samples

RECORDS = "records.jsonl"
SAMPLES = "samples"


def run(job: EvaluationJob) -> StageResult:
    """Make every picture, judge it, and write scores, records and samples."""
    done = read_result(job.run_dir)
    if done is not None and done.digest == job.digest():
        return done
    started, stage, run_dir = time.time(), job.stage, Path(job.run_dir)
    chunks = chunks_of(stage)
    workers = job.runtime.workers
    # One task per worker: loading the model costs more than a batch.
    shares = [chunks[worker::workers] for worker in range(workers)]
    write_progress(run_dir, 0, workers, "shares", "evaluate")

    def on_done(number: int, _: list[Judged]) -> None:
        write_progress(run_dir, number, workers, "shares", "evaluate")

    work = functools.partial(judge, str(job.input("checkpoint")), stage, job.runtime.threads)
    judged = [item for share in map_tasks(work, shares, workers, on_done, job.runtime.threads) for item in share]
    judged.sort(key=lambda item: (item.task, item.number))
    write_text(run_dir / RECORDS, "".join(json.dumps(item.record()) + "\n" for item in judged))
    with publish_folder(run_dir / SAMPLES) as folder:
        write_samples(folder, judged, stage)
    return write_result(
        job, stage.name, started, outputs={"records": RECORDS, "samples": SAMPLES}, metrics=summarise(judged)
    )


if __name__ == "__main__":
    main(EvaluationJob, run)
