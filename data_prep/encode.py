"""Stage "encode": latents and text features of both data sets, once, so that training never runs an encoder.

python -m data_prep.encode --config RUN/config.yaml
"""

from __future__ import annotations

import time
from pathlib import Path

from data_prep.config import EncodeJob, encoders_input
from data_prep.encoding import EncodeTask, Target, encode_tasks, finished, plan_tasks, prepare, text_dim
from data_prep.features import content_fingerprint, publish_features
from dreamline.config import ConfigError
from dreamline.data.encoded import FeatureShard, FeaturesInfo
from dreamline.data.index import SampleIndex, Shard, open_index
from dreamline.encoding.on_the_fly import full_key
from dreamline.engine.launch import main
from dreamline.model.frozen import materialise
from dreamline.result import StageResult, read_result, write_progress, write_result

KINDS = ("t2i", "edit")  # inputs, and outputs


def run(job: EncodeJob) -> StageResult:
    """Encode both data sets; what an earlier attempt finished is kept."""
    before = read_result(job.run_dir)
    if before is not None and before.digest == job.digest():
        return before
    started = time.time()
    encoders = job.input("encoders")
    if encoders_input(encoders).digest != job.inputs["encoders"].digest:
        raise ConfigError(f"{encoders}: the encoders have changed since this job was planned; plan it again")
    materialise(encoders, Path(job.run_dir) / "frozen")
    sets = {kind: open_index(job.input(kind)) for kind in KINDS}
    tasks = {kind: plan_kind(index, kind, job) for kind, index in sets.items()}
    encode_all([task for kind in KINDS for task in tasks[kind]], job)
    metrics: dict[str, float] = {}
    for kind, index in sets.items():
        info = publish(index, tasks[kind], job)
        metrics |= {
            f"{kind}/samples": float(info.num_samples),
            f"{kind}/bytes": float(sum(shard.size for shard in info.shards)),
        }
    outputs = {name: name for name in (*KINDS, "frozen")}
    return write_result(job, "encode", started, outputs=outputs, metrics=metrics)


def plan_kind(index: SampleIndex, kind: str, job: EncodeJob) -> list[EncodeTask]:
    """The tasks of one data set.

    Raises:
        ConfigError: the data set is of another kind, or empty.
    """
    if not len(index):
        raise ConfigError(f"inputs.{kind}: {index.folder} holds no samples; see its rejects.parquet for the reasons")
    if index.kinds != (kind,):
        raise ConfigError(f"inputs.{kind}: {index.folder} holds samples of kind {', '.join(map(repr, index.kinds))}")
    folder, frozen = Path(job.run_dir) / kind, Path(job.run_dir) / "frozen"
    target = Target(str(folder), str(frozen), job.digest(), job.stage.settings, job.runtime.threads)
    return plan_tasks(index, target, _stem)


def encode_all(tasks: list[EncodeTask], job: EncodeJob) -> None:
    """Encode the shards that no earlier attempt has finished."""
    prepare(tasks)
    old = finished(tasks)
    total, done = sum(len(task.rows) for task in tasks), sum(entry.samples for entry in old.values())

    def follow(_: Path, entry: FeatureShard) -> None:
        nonlocal done
        done += entry.samples
        write_progress(job.run_dir, done, total, "samples", "encode")

    write_progress(job.run_dir, done, total, "samples", "encode")
    missing = [task for task in tasks if task.path not in old]
    encode_tasks(missing, job.runtime.workers, job.runtime.threads, follow)


def publish(index: SampleIndex, tasks: list[EncodeTask], job: EncodeJob) -> FeaturesInfo:
    """List the encoded shards of one data set."""
    target = tasks[0].target
    entries = [task.entry() for task in tasks]
    fingerprint = content_fingerprint(entries)
    return publish_features(
        Path(target.folder),
        entries,
        name=index.name,
        num_rows=len(index),
        plan=target.plan,
        text_dim=text_dim(target.frozen),
        parents={"data": index.fingerprint, "encoders": job.inputs["encoders"].digest},
        key=full_key(index, target.frozen, target.settings),
        settings=target.settings,
        names=(fingerprint, fingerprint),
    )


def _stem(shard: Shard) -> str:
    """The shard's name without its content hash."""
    return shard.name.rsplit("-", 1)[0]


if __name__ == "__main__":
    main(EncodeJob, run)
