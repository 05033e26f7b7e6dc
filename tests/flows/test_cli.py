"""The command line: quick, without heavy imports, one JSON object when asked, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dreamline.result import RESULT, ROOT, StageResult
from flows.cli import app, newest_student


def dreamline(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 or "--json" in words else done.stderr


def as_json(*words: str, code: int = 0) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(dreamline(*words, "--json", code=code))
    return value


def test_flows_load_neither_torch_nor_servers() -> None:
    heavy = ("torch", "ray", "prefect", "mlflow", "deepspeed", "diffusers", "transformers", "pyarrow", "matplotlib")
    code = f"import flows.cli, flows.session, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_flow_process_needs_no_torch() -> None:
    code = "import flows.pipeline, sys; print([name for name in ('torch', 'deepspeed') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_status_is_quick_and_only_looks(tmp_path: Path) -> None:
    began = time.monotonic()
    value = as_json("status", "--preset", "smoke", "--workspace", str(tmp_path))
    assert time.monotonic() - began < 10
    assert {stage["state"] for stage in value["stages"]} == {"to do"}
    assert value["running"] is False
    assert list(tmp_path.iterdir()) == []


def test_configuration_can_be_looked_at_and_checked() -> None:
    shown = as_json("config", "show", "t2i", "--preset", "smoke", "--set", "t2i.stage.steps=9")
    assert shown["stages"]["t2i"]["stage"]["steps"] == 9
    assert set(as_json("config", "validate")["valid"]) >= {"demo", "smoke"}
    assert "t2i:" in dreamline("config", "show", "t2i", "--preset", "smoke")


def test_mistakes_have_an_exit_code_and_a_cure(tmp_path: Path) -> None:
    assert "choose one of demo, smoke" in dreamline("run", "--preset", "nope", code=2)
    wrong = as_json("run", "--preset", "smoke", "--set", "t2i.stage.steps=-1", code=2)
    assert wrong["kind"] == "ConfigError"
    assert "stage.steps" in wrong["error"]
    empty = ["--workspace", str(tmp_path)]
    assert "run `dreamline run` first" in dreamline("generate", "a red circle", "--out", "a.png", *empty, code=2)
    assert "no such picture" in dreamline("edit", "none.png", "make it red", "--out", "b.png", *empty, code=2)
    assert "nothing is done yet" in dreamline("report", "--preset", "smoke", *empty, code=2)


def test_doctor_tells_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "doctor", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    value = json.loads(done.stdout)
    assert done.returncode == (0 if value["ok"] else 1)
    checks = {check["name"]: check for check in value["checks"]}
    assert checks["python"]["ok"]
    assert checks["ray"]["ok"]
    assert checks["conf/demo"]["ok"]


def test_the_newest_finished_student_is_the_default_model(tmp_path: Path) -> None:
    for number, (preset, finished) in enumerate((("demo", True), ("smoke", True), ("other", False))):
        run_dir = tmp_path / preset / "runs" / "dmd2" / f"{preset}-abc"
        run_dir.mkdir(parents=True)
        if finished:
            (run_dir / "checkpoint").mkdir()
        result = StageResult(stage="dmd2", digest="abc", run_dir="", outputs={"checkpoint": "checkpoint"})
        (run_dir / RESULT).write_text(result.model_dump_json())
        os.utime(run_dir / RESULT, (number, number))
    assert newest_student(tmp_path) == tmp_path / "smoke" / "runs" / "dmd2" / "smoke-abc" / "checkpoint"


@pytest.mark.parametrize("command", ["run", "status", "report", "generate", "edit", "doctor"])
def test_every_command_can_answer_in_json(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0
    assert "--json" in shown.stdout


def test_a_store_that_cannot_be_used_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "no AWS credentials" in dreamline("data", "index", "s3://bucket/tars", code=4)
