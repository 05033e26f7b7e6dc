"""What a stage leaves behind: `result.json` (the marker, written last), progress and curves."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from dreamline.config import Config, ConfigError, Job, build
from dreamline.storage import write_text

RESULT = "result.json"
PROGRESS = "progress.json"
METRICS = "metrics.jsonl"
ROOT = Path(__file__).resolve().parent.parent


class StageResult(Config):
    """Result of one job. Output paths are relative to the run folder, so a folder can be moved as a whole."""

    # A metric that is no number stays readable: gates, not the reader, say what is wrong with it.
    model_config = ConfigDict(ser_json_inf_nan="constants")

    stage: str
    digest: str
    run_dir: str
    outputs: dict[str, str] = {}
    metrics: dict[str, float] = {}
    parents: dict[str, str] = {}
    wall_s: float = 0.0
    commit: str = ""
    source: str = ""
    stop_reason: str | None = None
    mlflow_version: str | None = None

    def output(self, name: str) -> Path:
        """Absolute path of an output.

        Raises:
            ConfigError: the stage has no such output.
        """
        if name not in self.outputs:
            raise ConfigError(f"stage {self.stage} has no output {name!r} (it has {sorted(self.outputs)})")
        return Path(self.run_dir) / self.outputs[name]


def write_result(job: Job, stage: str, started: float, **fields: Any) -> StageResult:
    """Publish the result of a job; its presence with the job's digest means done. `started` is time.time()."""
    result = StageResult(
        stage=stage,
        digest=job.digest(),
        run_dir=job.run_dir,
        parents={name: item.digest for name, item in job.inputs.items()},
        wall_s=round(time.time() - started, 3),
        commit=git_commit(),
        source=source_hash(),
        **fields,
    )
    write_text(Path(job.run_dir) / RESULT, result.model_dump_json(indent=2) + "\n")
    return result


def read_result(run_dir: str | Path) -> StageResult | None:
    """The result in a run folder, or None while there is none. `run_dir` is where it lies now, also after a move."""
    path = Path(run_dir) / RESULT
    if not path.is_file():
        return None
    values = json.loads(path.read_text())
    return build(StageResult, {**values, "run_dir": str(run_dir)}, str(path))


def write_progress(
    run_dir: str | Path, done: int, total: int, unit: str, message: str = "", metrics: Mapping[str, float] | None = None
) -> None:
    """Tell a follower how far a job is. Atomic, cheap, and only ever a view."""
    value = {
        "done": done,
        "total": total,
        "unit": unit,
        "message": message,
        "metrics": dict(metrics or {}),
        "updated": time.time(),
    }
    write_text(Path(run_dir) / PROGRESS, json.dumps(value) + "\n", durable=False)


@functools.cache
def git_commit() -> str:
    """Commit of the checkout that this code runs from, with `-dirty` when it was changed; empty outside git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.cache
def source_hash() -> str:
    """Hash over every source file of our packages: says whether a result was made by older code."""
    rooms = ("dreamline", "data_prep", "training", "rl", "distill", "evaluation")
    summary = hashlib.sha256()
    for path in sorted(file for room in rooms for file in (ROOT / room).rglob("*.py")):
        summary.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return summary.hexdigest()[:12]
