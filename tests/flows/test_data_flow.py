"""A build as a flow: planned like a stage; on real Prefect and Ray, with no process left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.build.config import load_build
from dreamline.result import ROOT
from flows.data_run import BUILD, MODULE, plan_build


@pytest.fixture
def config(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        cv2.imwrite(str(pictures / f"{number}.png"), rng.integers(0, 255, (20, 20, 3), np.uint8))
    path = tmp_path / "mine.yaml"
    source = "{kind: folder, path: ./pictures, caption: filename}"
    path.write_text(
        f"name: mine\nsources: [{source}]\noutput: ./out\nworkers: 1\ntracking_uri: sqlite:///{tmp_path}/mlflow.db\n"
    )
    return path


def test_a_build_is_planned_as_one_stage(config: Path, tmp_path: Path) -> None:
    plan = plan_build(load_build(config), tmp_path / "workspace")
    (stage,) = plan.stages.values()
    assert (stage.name, stage.module) == (BUILD, MODULE)
    assert stage.run_dir.is_relative_to(tmp_path / "workspace" / "data-mine")
    assert stage.digest in stage.run_dir.name
    moved = plan_build(load_build(config, ["output=elsewhere"]), tmp_path / "workspace")
    assert moved.stages[BUILD].digest != stage.digest


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_build_runs_as_a_flow(config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "data", "build", str(config), "--flow", "--json"]
    out, log = tmp_path / "out.json", tmp_path / "log.txt"
    with out.open("w") as stdout, log.open("w") as stderr:
        done = subprocess.run(
            [*command, "--workspace", str(tmp_path / "workspace")],
            stdout=stdout,
            stderr=stderr,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=450,
            check=False,
        )
    assert done.returncode == 0, log.read_text()[-3000:]
    summary = json.loads(out.read_text())
    assert summary["num_kept"] == summary["num_inputs"] == 6
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("data")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.digest == summary["fingerprint"][:36]
    assert json.loads(dataset.dataset.profile)["num_samples"] == 6
    assert run.data.metrics["num_kept"] == 6
