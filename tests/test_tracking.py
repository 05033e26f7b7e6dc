"""Runs, versions and aliases on a real sqlite MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamline import tracking
from dreamline.config import Config, Input, Job
from dreamline.result import ROOT


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def checkpoint(folder: Path, weights: bytes) -> Path:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(weights)
    return folder


def client(uri: str):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


class SomeStage(Config):
    steps: int = 1


class SomeJob(Job):
    stage: SomeStage = SomeStage()


def job(steps: int, **inputs: str) -> SomeJob:
    named = {name: Input(path=f"/data/{name}", digest=digest) for name, digest in inputs.items()}
    return SomeJob(preset="demo", run_dir="", stage=SomeStage(steps=steps), inputs=named)


def register(uri: str, folder: Path, stage: str, made_by: Job) -> str:
    tags = {"digest": made_by.digest(), "commit": "abc"}
    run = tracking.start_run(uri, "demo", stage, tags, made_by.stage.model_dump())
    version = tracking.register(uri, folder, stage, made_by, run)
    tracking.end_run(run)
    return version


def test_a_version_points_to_the_checkpoint_and_is_made_once(uri: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", b"x" * 4096)
    first = register(uri, folder, "t2i", job(1))
    assert register(uri, folder, "t2i", job(1)) == first
    assert tracking.find_version(uri, job(1).digest()) == first
    assert tracking.find_version(uri, "bbbbbbbbbbbb") is None

    version = client(uri).get_model_version_by_alias(tracking.MODEL, "t2i")
    assert str(version.version) == first
    assert version.tags["path"] == str(folder)
    assert (version.tags["stage"], version.tags["commit"], version.tags["preset"]) == ("t2i", "abc", "demo")
    stored = Path(version.source.removeprefix("file://"))
    pointer = json.loads((stored / tracking.POINTER).read_text())
    assert set(pointer["files"]) == {"model_index.json", "unet/weights.safetensors"}
    assert [file.name for file in stored.rglob("*")] == [tracking.POINTER], "weights must not be copied"


def test_other_files_make_another_version_and_the_parent_is_recorded(uri: str, tmp_path: Path) -> None:
    one = register(uri, checkpoint(tmp_path / "one", b"1"), "edit", job(2, t2i="a" * 12))
    two = register(uri, checkpoint(tmp_path / "two", b"2"), "edit", job(2, t2i="a" * 12))
    assert int(two) > int(one)
    parent = job(2, t2i="a" * 12).digest()
    three = register(uri, checkpoint(tmp_path / "three", b"3"), "joint", job(3, t2i="b" * 12, init_from=parent))
    assert str(client(uri).get_model_version_by_alias(tracking.MODEL, "edit").version) == two
    newest, before = (client(uri).get_model_version(tracking.MODEL, version) for version in (three, two))
    assert newest.tags["parent_version"] == two
    assert newest.tags["data_fingerprint"] != before.tags["data_fingerprint"]


def test_scores_and_champion(uri: str, tmp_path: Path) -> None:
    version = register(uri, checkpoint(tmp_path / "c", b"4"), "dmd2", job(4))
    tracking.tag_version(uri, version, {"scenes/generation": "0.9150"})
    tracking.set_alias(uri, "champion", version)
    champion = client(uri).get_model_version_by_alias(tracking.MODEL, "champion")
    assert champion.tags["scenes/generation"] == "0.9150"


def test_a_resumed_job_continues_its_run(uri: str) -> None:
    tags = {"digest": "eeeeeeeeeeee"}
    run = tracking.start_run(uri, "demo", "sft", tags, {"steps": 3, "optim": {"lr": 0.1}})
    tracking.log_metrics(run, {"loss/velocity": 1.5, "lr": 0.1}, step=1)
    tracking.log_datasets(run, job(5, t2i="f" * 12, frozen="0" * 12))
    tracking.end_run(run, failed=True)
    again = tracking.start_run(uri, "demo", "sft", tags, {"steps": 3})
    assert again.run_id == run.run_id
    tracking.log_metrics(again, {"loss/velocity": 0.5}, step=2)
    tracking.end_run(again)
    stored = client(uri).get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["optim.lr"] == "0.1"
    assert stored.data.metrics["loss/velocity"] == 0.5
    assert [found.dataset.digest for found in stored.inputs.dataset_inputs] == ["f" * 12]


def test_mistakes_are_named(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digest"):
        tracking.start_run(uri, "demo", "x", {}, {})
    with pytest.raises(FileNotFoundError, match="nothing to register"):
        register(uri, tmp_path / "missing", "t2i", job(6))


def test_two_processes_may_make_the_database(tmp_path: Path) -> None:
    code = (
        "import sys; from dreamline import tracking;"
        "run = tracking.start_run(sys.argv[1], 'demo', 'x', {'digest': sys.argv[2]}, {}); tracking.end_run(run)"
    )
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    def start(digest: str) -> int:
        return subprocess.run([sys.executable, "-c", code, uri, digest], cwd=ROOT, timeout=120, check=False).returncode

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(start, ["a" * 12, "b" * 12])) == [0, 0]


def test_mlflow_is_not_imported_by_the_module() -> None:
    code = "import dreamline.tracking, sys; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
