"""Configuration, results and storage."""

from __future__ import annotations

import json
import os

import pytest
from pydantic import Field

from dreamline.config import Config, ConfigError, Job, digest, dump, load
from dreamline.result import StageResult, read_result, write_progress, write_result
from dreamline.storage import hash_folder, link_tree, publish_folder, write_json


class Part(Config):
    size: int = Field(3, ge=1)
    rate: float = 0.5


class Stage(Config):
    name: str = "x"
    part: Part = Part()


class ToyJob(Job):
    stage: Stage = Stage()


def write(path, text):
    path.write_text(text)
    return path


def test_two_layers_and_overrides(tmp_path):
    write(tmp_path / "base.yaml", "stage: {name: a, part: {size: 5, rate: 0.1}}\n")
    top = write(tmp_path / "top.yaml", "base: base.yaml\nstage: {part: {size: 6}}\n")
    job = load(ToyJob, top, ["stage.part.rate=1e-3", "runtime.workers=2"], preset="p", run_dir="r")
    assert job.stage == Stage(name="a", part=Part(size=6, rate=1e-3))
    assert job.runtime.workers == 2


def test_a_base_of_a_base_is_refused(tmp_path):
    write(tmp_path / "a.yaml", "base: b.yaml")
    write(tmp_path / "b.yaml", "base: c.yaml")
    with pytest.raises(ConfigError, match="a base may not have a base"):
        load(Part, tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise: 3", r"sise: Extra inputs.*\n.*keys: size, rate"),
        ("size: 0", "size: Input should be greater"),
        ("[1]", "must hold a mapping, found list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_errors_name_file_and_key(tmp_path, text, message):
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(Part, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("override", ["size", "=3", "size.deep=1"])
def test_bad_overrides(tmp_path, override):
    path = write(tmp_path / "c.yaml", "size: 2")
    with pytest.raises(ConfigError, match=r"override '.*'"):
        load(Part, path, [override])


def test_dump_and_load_are_inverse(tmp_path):
    job = ToyJob(preset="p", run_dir=str(tmp_path), inputs={"a": {"path": "x", "digest": "y"}})
    dump(job, tmp_path / "config.yaml")
    assert load(ToyJob, tmp_path / "config.yaml") == job


def test_digest_covers_stage_and_inputs_but_not_runtime():
    job = ToyJob(preset="p", run_dir="r")
    assert job.digest() == ToyJob(preset="q", run_dir="s", runtime={"workers": 4}).digest()
    assert job.digest() != ToyJob(preset="p", run_dir="r", stage={"name": "y"}).digest()
    with_input = ToyJob(preset="p", run_dir="r", inputs={"a": {"path": "x", "digest": "1"}})
    moved = ToyJob(preset="p", run_dir="r", inputs={"a": {"path": "elsewhere", "digest": "1"}})
    assert with_input.digest() == moved.digest()
    assert with_input.digest() != job.digest()
    assert len(digest({"a": 1})) == 12


def test_missing_input_is_named():
    with pytest.raises(ConfigError, match=r"inputs\.teacher is missing"):
        ToyJob(preset="p", run_dir="r").input("teacher")


def test_result_moves_with_its_folder(tmp_path):
    job = ToyJob(preset="p", run_dir=str(tmp_path / "a"))
    written = write_result(job, "x", 0.0, outputs={"checkpoint": "c"}, metrics={"loss": 1.0})
    assert read_result(tmp_path / "a") == written
    (tmp_path / "a").rename(tmp_path / "b")
    moved = read_result(tmp_path / "b")
    assert isinstance(moved, StageResult)
    assert moved.output("checkpoint") == tmp_path / "b" / "c"
    with pytest.raises(ConfigError, match="has no output 'reward'"):
        moved.output("reward")
    assert read_result(tmp_path / "a") is None


def test_progress_is_one_readable_object(tmp_path):
    write_progress(tmp_path, 3, 10, "steps", "train", {"loss": 0.5})
    value = json.loads((tmp_path / "progress.json").read_text())
    assert (value["done"], value["total"], value["metrics"]) == (3, 10, {"loss": 0.5})


def test_a_folder_appears_as_a_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out"
    with publish_folder(target) as new:
        write_json(new / "a.json", 1)
        assert not target.exists()
    with pytest.raises(RuntimeError, match="halfway"), publish_folder(target) as new:  # noqa: PT012
        (new / "b").write_text("x")
        raise RuntimeError("halfway")
    assert [path.name for path in target.iterdir()] == ["a.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_publishing_replaces_and_sweeps_what_a_killed_writer_left(tmp_path):
    (tmp_path / ".out.tmp-999").mkdir()
    with publish_folder(tmp_path / "out") as new:
        (new / "old").write_text("x")
    with publish_folder(tmp_path / "out") as new:
        (new / "secret").write_text("y")
        (new / "secret").chmod(0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["secret"]
    assert (tmp_path / "out" / "secret").stat().st_mode & 0o777 == 0o644


def test_linked_trees_share_their_bytes(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "f").write_text("content")
    link_tree(tmp_path / "a", tmp_path / "b")
    assert os.stat(tmp_path / "a" / "deep" / "f").st_ino == os.stat(tmp_path / "b" / "deep" / "f").st_ino
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")
