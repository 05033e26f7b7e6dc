"""Stage "encode": latents and text features of both data sets, once, so that training never runs an encoder.

python -m data_prep.encode --config RUN/config.yaml
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from data_prep.config import EncodeJob, encoders_input
from data_prep.encoding import EncodeTask, encode_shard
from data_prep.features import is_encoded, publish_features
from data_prep.manifest import sweep
from dreamline.cluster import map_tasks
from dreamline.config import ConfigError
from dreamline.data.manifest import FeaturesInfo
from dreamline.data.shards import ShardSet
from dreamline.engine.launch import main
from dreamline.model.frozen import materialise
from dreamline.result import StageResult, read_result, write_progress, write_result

KINDS = ("t2i", "edit")  # inputs, and outputs


def run(job: EncodeJob) -> StageResult:
    """Encode both data sets; what an earlier attempt finished is kept."""
    finished = read_result(job.run_dir)
    if finished is not None and finished.digest == job.digest():
        return finished
    started = time.time()
    encoders = job.input("encoders")
    if encoders_input(encoders).digest != job.inputs["encoders"].digest:
        raise ConfigError(f"{encoders}: the encoders have changed since this job was planned; plan it again")
    materialise(encoders, Path(job.run_dir) / "frozen")
    sets = {kind: ShardSet(job.input(kind)) for kind in KINDS}
    tasks = {kind: plan_tasks(shards, kind, job) for kind, shards in sets.items()}
    encode_missing([task for kind in KINDS for task in tasks[kind]], job)
    metrics: dict[str, float] = {}
    for kind, shards in sets.items():
        info = publish(shards, Path(job.run_dir) / kind, tasks[kind], job)
        metrics |= {
            f"{kind}/samples": float(info.num_samples),
            f"{kind}/bytes": float(sum(shard.size for shard in info.shards)),
        }
    outputs = {name: name for name in (*KINDS, "frozen")}
    return write_result(job, "encode", started, outputs=outputs, metrics=metrics)


def plan_tasks(shards: ShardSet, kind: str, job: EncodeJob) -> list[EncodeTask]:
    """One task per shard that holds samples.

    Raises:
        ConfigError: the data set is of another kind, or empty.
    """
    if shards.info.kind != kind:
        raise ConfigError(f"inputs.{kind}: {shards.folder} holds samples of kind {shards.info.kind!r}")
    if not len(shards):
        raise ConfigError(f"inputs.{kind}: {shards.folder} holds no samples; see its rejects.parquet for the reasons")
    folder, frozen = Path(job.run_dir) / kind, Path(job.run_dir) / "frozen"
    return [
        EncodeTask(
            str(shards.folder),
            entry.name,
            entry.samples,
            str(folder),
            str(frozen),
            job.digest(),
            job.stage,
            job.runtime.threads,
        )
        for entry in shards.info.shards
        if entry.samples
    ]


def encode_missing(tasks: Sequence[EncodeTask], job: EncodeJob) -> None:
    """Encode the shards that no earlier attempt has finished."""
    for folder in {Path(task.folder) for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
    missing = [task for task in tasks if not is_encoded(Path(task.folder), task.stem, task.plan)]
    total = sum(task.num_samples for task in tasks)
    done = total - sum(task.num_samples for task in missing)

    def follow(_: int, samples: int) -> None:
        nonlocal done
        done += samples
        write_progress(job.run_dir, done, total, "samples", "encode")

    write_progress(job.run_dir, done, total, "samples", "encode")
    map_tasks(encode_shard, missing, job.runtime.workers, follow, job.runtime.threads)


def publish(shards: ShardSet, folder: Path, tasks: Sequence[EncodeTask], job: EncodeJob) -> FeaturesInfo:
    """List the encoded shards of one data set."""
    parents = {"data": shards.info.fingerprint, "encoders": job.inputs["encoders"].digest}
    return publish_features(shards.info, folder, [task.stem for task in tasks], job.digest(), parents)


if __name__ == "__main__":
    main(EncodeJob, run)
