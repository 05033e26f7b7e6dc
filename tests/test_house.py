"""The house itself: our package names are ours, floors stay apart, and a stage trains on a bare machine."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from data_prep.config import DataJob, EncodeJob, encoders_input
from dreamline.config import build, dump
from training.config import TrainJob

ROOT = Path(__file__).parents[1]
PACKAGES = ("dreamline", "data_prep", "training", "rl", "distill", "evaluation", "flows")
BARE = """
import sys
for name in ("ray", "mlflow", "prefect", "pyarrow", "boto3", "webdataset", "deepspeed"):
    sys.modules[name] = None  # as if it were not installed
import runpy
sys.argv = ["training.run", "--config", sys.argv[1]]
runpy.run_module("training.run", run_name="__main__")
"""


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_are_ours(name):
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert Path(spec.origin).is_relative_to(ROOT)
    assert set(packages_distributions().get(name, ["dreamline"])) == {"dreamline"}


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_hold_only_a_docstring_at_the_top(name):
    lines = (ROOT / name / "__init__.py").read_text().strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith('"""')


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=True).stdout.strip()


def test_flows_load_no_torch():
    code = "import sys, flows.pipeline, flows.cli; print([m for m in ('torch', 'deepspeed') if m in sys.modules])"
    assert python(code) == "[]"


def test_the_command_line_starts_light():
    code = "import sys, flows.cli; print([m for m in ('prefect', 'ray', 'mlflow', 'torch') if m in sys.modules])"
    assert python(code) == "[]"


def test_a_stage_trains_on_a_bare_machine(tmp_path):
    """One worker, plain torch: no Ray, DeepSpeed, MLflow, Prefect, pyarrow, boto3 or webdataset can be imported."""
    from data_prep.encode import run as encode
    from data_prep.run import run as draw

    data = build(
        DataJob,
        {"preset": "t", "run_dir": str(tmp_path / "data"), "stage": {"num_t2i": 8, "num_edit": 8, "shard_size": 8}},
        "test",
    )
    draw(data)
    sets = {name: {"path": str(tmp_path / "data" / name), "digest": "x"} for name in ("t2i", "edit")}
    encoders = encoders_input(ROOT / "assets" / "encoders").model_dump()
    values = {"preset": "t", "run_dir": str(tmp_path / "enc"), "inputs": {**sets, "encoders": encoders}, "stage": {}}
    encode(build(EncodeJob, values, "test"))
    inputs = {name: {"path": str(tmp_path / "enc" / name), "digest": "x"} for name in ("t2i", "edit", "frozen")}
    stage = {
        "name": "joint",
        "steps": 2,
        "micro_batch_size": 4,
        "global_batch_size": 8,
        "mixture": {"t2i": 1, "edit": 1},
        "optim": {"lr": 1e-3},
    }
    runtime = {"backend": "local", "log_every": 1}
    run_dir = tmp_path / "joint"
    values = {"preset": "t", "run_dir": str(run_dir), "inputs": inputs, "stage": stage, "runtime": runtime}
    dump(build(TrainJob, values, "test"), run_dir / "config.yaml")
    command = [sys.executable, "-c", BARE, str(run_dir / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads((run_dir / "result.json").read_text())
    assert result["metrics"]["train/steps"] == 2
    assert (run_dir / "checkpoint" / "model_index.json").is_file()
