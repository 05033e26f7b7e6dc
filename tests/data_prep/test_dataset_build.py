"""The data stage: reproducible shards, nothing vanishes, a killed build goes on."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_prep.config import DataJob, DataStage
from data_prep.manifest import read_part
from data_prep.run import build, run
from data_prep.sources.scenes import SceneSource
from data_prep.writer import ShardTask, plan_shards, write_shard
from dreamline.config import ConfigError, Runtime, dump
from dreamline.data.index import open_index
from dreamline.data.manifest import MANIFEST, REJECTS, read_info, read_table
from dreamline.data.sample import Sample, decode_png, encode_png
from dreamline.data.shard_cache import CacheConfig
from dreamline.data.shards import ShardReader
from dreamline.result import read_result
from dreamline.scenes.detector import detect
from dreamline.scenes.sampling import split_of
from dreamline.scenes.world import Scene, World
from dreamline.storage import hash_folder

ROOT = Path(__file__).parents[2]
STAGE = DataStage(num_t2i=40, num_edit=30, shard_size=16, seed=3)


def make_job(folder: Path, workers: int = 1, stage: DataStage = STAGE) -> DataJob:
    return DataJob(preset="test", run_dir=str(folder), runtime=Runtime(workers=workers), stage=stage)


def reader_of(folder: Path, cache: Path) -> ShardReader:
    return ShardReader(open_index(folder, cache), CacheConfig(folder=cache))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    run(make_job(folder))
    return folder


def test_result_and_folders(built: Path) -> None:
    result = read_result(built)
    assert result is not None
    assert result.outputs == {"t2i": "t2i", "edit": "edit"}
    assert result.metrics["t2i/samples"] == 40
    assert result.metrics["edit/rejected"] == 0
    info = read_info(result.output("edit"))
    assert [shard.samples for shard in info.shards] == [16, 14]
    assert sum(info.statistics["label"].values()) == 30
    assert not list(built.rglob("*.tmp-*"))
    assert not list(built.rglob("parts"))
    before = (built / "result.json").stat().st_mtime_ns
    assert run(make_job(built)).outputs == result.outputs
    assert (built / "result.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["t2i", "edit"])
def test_webdataset_and_manifest_read_the_same(built: Path, kind: str, tmp_path: Path) -> None:
    reader = reader_of(built / kind, tmp_path)
    samples = reader.read(range(len(reader)))
    files = [str(built / kind / shard.name) for shard in reader.index.shards]
    records = list(webdataset.WebDataset(files, shardshuffle=False))
    assert len(records) == len(samples)
    for number, record in enumerate(records):
        members = {name: content for name, content in record.items() if not name.startswith("_")}
        assert Sample.from_members(record["__key__"], members) == samples[number]


def test_tar_members_are_plain(built: Path) -> None:
    name = read_info(built / "edit").shards[0].name
    with tarfile.open(built / "edit" / name) as tar:
        members = tar.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
    assert [member.name.split(".", 1)[1] for member in members[:4]] == [
        "instruction.txt",
        "json",
        "source.png",
        "target.png",
    ]


def test_samples_show_what_they_say(built: Path, tmp_path: Path) -> None:
    world = STAGE.world
    for sample in reader_of(built / "edit", tmp_path).read(range(10)):
        assert sample.source is not None
        assert detect(decode_png(sample.source), world) == Scene.from_json(sample.facts["source"])
        assert detect(decode_png(sample.image), world) == Scene.from_json(sample.facts["target"])
        assert split_of(sample.text, world) == "train"


def test_same_seed_same_bytes_other_seed_other_content(built: Path, tmp_path: Path) -> None:
    run(make_job(tmp_path / "again"))
    run(make_job(tmp_path / "other", stage=STAGE.model_copy(update={"seed": 4})))
    for kind in ("t2i", "edit"):
        assert hash_folder(tmp_path / "again" / kind) == hash_folder(built / kind)
        other, this = (read_info(folder / kind) for folder in (tmp_path / "other", built))
        assert other.fingerprint != this.fingerprint


def test_fingerprint_does_not_depend_on_the_layout(built: Path, tmp_path: Path) -> None:
    run(make_job(tmp_path, stage=STAGE.model_copy(update={"shard_size": 7})))
    assert len(read_info(tmp_path / "t2i").shards) == 6
    for kind in ("t2i", "edit"):
        assert read_info(tmp_path / kind).fingerprint == read_info(built / kind).fingerprint


def test_two_ray_workers_write_the_same_bytes(built: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, workers=2)
    dump(job, tmp_path / "config.yaml")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "data_prep.run", "--config", str(tmp_path / "config.yaml")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, timeout=120)
    for kind in ("t2i", "edit"):
        assert hash_folder(tmp_path / kind) == hash_folder(built / kind)


@dataclass(frozen=True)
class Spoilt(SceneSource):
    """A scene source in which some samples are damaged before they are checked."""

    def sample(self, index: int) -> Sample:
        sample = super().sample(index)
        if index == 3:  # paint over the picture
            pixels = decode_png(sample.image).copy()
            pixels[:16] = (0, 180, 60)
            return replace(sample, image=encode_png(pixels))
        if index == 5:
            return replace(sample, image=sample.image[: len(sample.image) // 2])
        if index == 8:
            return replace(sample, image=encode_png(np.zeros((16, 16, 3), np.uint8)))
        if index == 9:
            return replace(sample, text=_eval_text(self.world))
        if index == 10 and sample.source is not None:
            return replace(sample, image=sample.source, facts={**sample.facts, "target": sample.facts["source"]})
        return sample


def _eval_text(world: World) -> str:
    return next(text for text in (f"a red circle {i}" for i in range(1000)) if split_of(text, world) == "eval")


@pytest.mark.parametrize("kind", ["t2i", "edit"])
def test_nothing_vanishes(tmp_path: Path, kind: str) -> None:
    source = Spoilt("t2i" if kind == "t2i" else "edit", World(), "scenes", 20, 0, 32)
    (info,) = build([source], make_job(tmp_path), parents={})
    reasons = {3: "picture", 5: "unreadable", 8: "size", 9: "eval_text"}
    expected = {f"scenes-{kind}-{index:08d}": reason for index, reason in reasons.items()}
    if kind == "edit":
        expected["scenes-edit-00000010"] = "no_change"
    rejects = {row["key"]: row["reason"] for row in read_table(tmp_path / kind / REJECTS)}
    assert rejects == expected
    assert info.num_inputs == 20 == info.num_samples + sum(info.rejected.values())
    assert sum(info.rejected.values()) == len(expected)
    kept = {row["key"] for row in read_table(tmp_path / kind / MANIFEST)}
    assert len(kept | rejects.keys()) == 20
    assert not kept & rejects.keys()


def test_a_source_that_repeats_keys_is_refused(tmp_path: Path) -> None:
    class Repeating(SceneSource):
        def sample(self, index: int) -> Sample:
            return super().sample(index // 2)

    with pytest.raises(RuntimeError, match="keys are not unique"):
        build([Repeating("t2i", World(), "scenes", 4, 0, 32)], make_job(tmp_path), parents={})


def test_a_killed_build_keeps_finished_shards(built: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    source = SceneSource("t2i", STAGE.world, STAGE.name, STAGE.num_t2i, STAGE.seed, 32)
    folder = tmp_path / "t2i"
    tasks = plan_shards(source, folder, STAGE.shard_size, job.digest())
    for task in tasks[:2]:
        write_shard(task)
    (folder / ".scenes-t2i-000002.tar.tmp-1").write_bytes(b"cut")  # what a killed writer leaves
    damaged = folder / _name(folder, tasks[1])
    damaged.write_bytes(damaged.read_bytes()[:-1024])
    kept = folder / _name(folder, tasks[0])
    before = kept.stat().st_mtime_ns
    run(job)
    assert kept.stat().st_mtime_ns == before
    assert hash_folder(folder) == hash_folder(built / "t2i")


def _name(folder: Path, task: ShardTask) -> str:
    part = read_part(folder, task.number, task.plan)
    assert part is not None
    return part.entry.name


def test_parts_of_another_plan_are_not_used(tmp_path: Path) -> None:
    source = SceneSource("t2i", STAGE.world, STAGE.name, 4, 0, 32)
    write_shard(plan_shards(source, tmp_path, 4, "one")[0])
    assert read_part(tmp_path, 0, "one") is not None
    assert read_part(tmp_path, 0, "two") is None


def test_damage_is_found_on_reading(tmp_path: Path) -> None:
    run(make_job(tmp_path))
    row = read_table(tmp_path / "t2i" / MANIFEST)[5]
    member: dict[str, int] = next(member for member in row["members"] if member["name"] == "txt")
    path = tmp_path / "t2i" / row["shard"]
    content = bytearray(path.read_bytes())
    content[member["offset"]] ^= 1
    path.write_bytes(content)
    reader = reader_of(tmp_path / "t2i", tmp_path / "cache")
    assert reader.read([20])
    with pytest.raises(ConfigError, match=rf"{row['shard']}: is damaged.*run the data job again"):
        reader.read([5])


def test_an_unfinished_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not finished"):
        open_index(tmp_path, tmp_path / "cache")


def test_bad_records_are_named(built: Path, tmp_path: Path) -> None:
    members = reader_of(built / "t2i", tmp_path).members([0])[0]
    with pytest.raises(ValueError, match=r"sample k: has the members"):
        Sample.from_members("k", {name: members[name] for name in ("png", "txt")})
    with pytest.raises(ValueError, match=r"sample k: cannot be read"):
        Sample.from_members("k", {**members, "json": b"{"})
    facts = json.loads(members["json"])
    assert hashlib.sha256(members["png"]).hexdigest() in json.dumps(read_table(built / "t2i" / MANIFEST)[0]["members"])
    assert set(facts) == {"label", "facts", "width", "height"}


def test_problems_of_nothing() -> None:
    source = SceneSource("t2i", World(), "scenes", 1, 0, 32)
    samples: Sequence[Sample] = []
    assert source.problems(samples) == []
