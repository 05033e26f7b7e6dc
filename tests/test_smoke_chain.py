"""The whole chain, as a user runs it, in a few steps a stage: real Prefect, Ray, DeepSpeed and MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[1]
STAGES = ["data", "encode", "t2i", "edit", "joint", "sft", "reward", "refl", "dmd2"]
TRAINED = ["t2i", "edit", "joint", "sft", "refl", "dmd2"]
pytestmark = pytest.mark.timeout(900)


def dreamline(*options: str, timeout: float = 800) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=timeout, env=environment)


def ours(workspace: Path) -> list[str]:
    """Processes that know of this workspace."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if str(workspace) in command and process.info["pid"] != os.getpid():
            found.append(command)
    return found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("smoke") / "workspace"


@pytest.fixture(scope="module")
def summary(workspace) -> dict[str, Any]:
    done = dreamline("run", "--preset", "smoke", "--workspace", str(workspace), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ours(workspace) == []
    return json.loads((workspace / "smoke" / "summary.json").read_text())


def test_every_stage_ran(summary):
    assert summary["preset"] == "smoke"
    assert [stage["name"] for stage in summary["stages"]] == STAGES
    assert all(stage["wall_s"] > 0 for stage in summary["stages"])


def test_losses_fall(summary):
    t2i = next(stage for stage in summary["stages"] if stage["name"] == "t2i")
    assert t2i["metrics"]["train/loss"] < t2i["metrics"]["train/loss_first"]


def test_every_checkpoint_is_scored_registered_and_runs(summary):
    from PIL import Image

    from dreamline.model.folder import load_pipeline

    stages = {stage["name"]: stage for stage in summary["stages"]}
    versions = [stages[name]["mlflow_version"] for name in TRAINED]
    assert sorted(map(int, versions)) == [1, 2, 3, 4, 5, 6]
    for name in TRAINED:
        metrics = stages[name]["metrics"]
        for task in ("generation", "editing"):
            low, mean, high = (metrics[f"scenes/{task}{end}"] for end in ("_low", "", "_high"))
            assert 0 <= low <= mean <= high <= 1
    for name, kind in (("sft", "DreamLitePipeline"), ("dmd2", "DreamLiteMobilePipeline")):
        pipe = load_pipeline(stages[name]["checkpoint"])
        pipe.set_progress_bar_config(disable=True)
        assert type(pipe).__name__ == kind
        made = pipe(prompt="a red circle", height=32, width=32, num_inference_steps=2).images[0]
        edited = pipe(prompt="make the circle green", image=made, height=32, width=32, num_inference_steps=2).images[0]
        assert isinstance(edited, Image.Image)
        assert edited.size == (32, 32)


def test_the_registry_tells_where_a_version_comes_from(summary, workspace):
    from mlflow import MlflowClient

    uri = f"sqlite:///{workspace / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    stages = {stage["name"]: stage for stage in summary["stages"]}
    for name in TRAINED:
        version = client.get_model_version_by_alias("dreamline", name)
        assert str(version.version) == stages[name]["mlflow_version"]
        assert {"stage", "digest", "data_fingerprint", "commit", "scenes/generation"} <= set(version.tags)
    student = client.get_model_version_by_alias("dreamline", "dmd2")
    assert student.tags["parent_version"] == stages["refl"]["mlflow_version"]


def test_what_each_step_changed_is_told_in_pairs(summary):
    pairs = {(pair["before"], pair["after"], pair["task"]): pair for pair in summary["comparisons"]}
    for before, after in (("sft", "refl"), ("refl", "dmd2"), ("refl-naive", "dmd2")):
        for task in ("generation", "editing"):
            pair = pairs[before, after, task]
            assert pair["low"] <= pair["difference"] <= pair["high"]
            assert pair["num_items"] == 12
    assert [entry["name"] for entry in summary["extra_evaluations"]] == ["refl-naive"]


def test_the_report_is_one_file(summary, workspace):
    report = (workspace / "smoke" / "report.html").read_text()
    assert "<html" in report
    assert 'src="http' not in report
    assert "data:image/png;base64" in report


def test_again_only_says_what_is_done(summary, workspace):
    before = {path: path.stat().st_mtime_ns for path in (workspace / "smoke" / "runs").rglob("result.json")}
    started = time.monotonic()
    done = dreamline("run", "--preset", "smoke", "--workspace", str(workspace))
    assert done.returncode == 0
    assert "all 16 stages are done" in done.stdout + done.stderr
    assert time.monotonic() - started < 20
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_newest_student_draws_and_edits(summary, workspace, tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    place = ("--workspace", str(workspace), "--json")
    done = dreamline("generate", "a red circle to the left of a blue square", "--out", str(first), *place)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    done = dreamline("edit", str(first), "make the circle green", "--out", str(second), *place)
    assert done.returncode == 0, done.stderr
    assert second.is_file()
