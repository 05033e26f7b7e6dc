"""Stage "data": draw the data sets and write them as shards with a manifest.

python -m data_prep.run --config RUN/config.yaml
"""

from __future__ import annotations

import time
from pathlib import Path

from data_prep.config import DataJob
from data_prep.manifest import publish_dataset, read_dataset, sweep
from data_prep.sources.scenes import SceneSource, Source
from data_prep.writer import is_written, plan_shards, write_shard
from dreamline.cluster import map_tasks
from dreamline.config import digest
from dreamline.data.manifest import DatasetInfo
from dreamline.engine.launch import main
from dreamline.result import StageResult, read_result, write_progress, write_result


def run(job: DataJob) -> StageResult:
    """Build both data sets; what an earlier attempt finished is kept."""
    finished = read_result(job.run_dir)
    if finished is not None and finished.digest == job.digest():
        return finished
    started = time.time()
    stage = job.stage
    sources: list[Source] = [
        SceneSource("t2i", stage.world, stage.name, stage.num_t2i, stage.seed, stage.side),
        SceneSource("edit", stage.world, stage.name, stage.num_edit, stage.seed, stage.side),
    ]
    infos = build(sources, job, parents={"world": digest(stage.world)})
    metrics: dict[str, float] = {}
    for info in infos:
        metrics |= {
            f"{info.kind}/samples": float(info.num_samples),
            f"{info.kind}/rejected": float(info.num_inputs - info.num_samples),
            f"{info.kind}/bytes": float(sum(shard.size for shard in info.shards)),
        }
    return write_result(job, "data", started, outputs={info.kind: info.kind for info in infos}, metrics=metrics)


def build(sources: list[Source], job: DataJob, parents: dict[str, str]) -> list[DatasetInfo]:
    """Write each source as the data set RUN/<kind>; shards of all sources are made side by side."""
    folders = {source.kind: Path(job.run_dir) / source.kind for source in sources}
    plan = job.digest()
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
    shards = {source.kind: plan_shards(source, folders[source.kind], job.stage.shard_size, plan) for source in sources}
    built = {kind: read_dataset(folder, plan) for kind, folder in folders.items()}
    tasks = [task for kind, group in shards.items() if built[kind] is None for task in group if not is_written(task)]
    total = sum(source.num_samples for source in sources)
    done = total - sum(task.stop - task.start for task in tasks)

    def follow(_: int, samples: int) -> None:
        nonlocal done
        done += samples
        write_progress(job.run_dir, done, total, "samples", "write shards")

    write_progress(job.run_dir, done, total, "samples", "write shards")
    map_tasks(write_shard, tasks, job.runtime.workers, follow, job.runtime.threads)
    return [
        built[source.kind] or publish_dataset(source, folders[source.kind], plan, len(shards[source.kind]), parents)
        for source in sources
    ]


if __name__ == "__main__":
    main(DataJob, run)
