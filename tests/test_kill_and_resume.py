"""kill -9 of everything in the middle of any stage, then the same command: the same final weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dreamline.storage import hash_folder
from flows.processes import TAG

ROOT = Path(__file__).parents[1]
KILLED_IN = ["data", "encode", "t2i", "joint", "eval-sft", "reward", "refl", "dmd2"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def start(workspace: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows.cli", "run", "--preset", "smoke", "--workspace", str(workspace)]
    for stage in ("t2i", "joint", "reward", "refl", "dmd2"):  # a state to resume from after every second step
        command += ["--set", f"{stage}.runtime.checkpoint_every=2"]
    log = (workspace.parent / f"{workspace.name}.log").open("ab")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment, start_new_session=True)


def family(root: psutil.Process) -> list[psutil.Process]:
    """The command, its descendants, and what they started that no longer hangs below them."""
    tags = set()
    members = [root, *root.children(recursive=True)]
    for process in members:
        try:
            tags.add(process.environ().get(TAG))
        except psutil.Error:
            continue
    tags.discard(None)
    for process in psutil.process_iter():
        try:
            if process.environ().get(TAG) in tags:
                members.append(process)
        except psutil.Error:
            continue
    return members


def kill_everything(command: subprocess.Popen[bytes]) -> None:
    for process in family(psutil.Process(command.pid)):
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.Error:
            continue
    command.wait(timeout=30)


def in_the_middle(run_root: Path) -> bool:
    """Some work of a stage is done, but not all: a state or part of a data set is there, or the job has begun."""
    for run in run_root.glob("*"):
        if (run / "result.json").exists():
            return False
        begun = (run / "progress.json").exists()
        trained = "train" in (run / "progress.json").read_text() if begun else False
        if list(run.glob("state/step-*/state.json")) or (begun and not trained):
            return True
    return False


def finish(command: subprocess.Popen[bytes], workspace: Path) -> None:
    assert command.wait(timeout=1200) == 0, (workspace.parent / f"{workspace.name}.log").read_text()[-4000:]


def weights(workspace: Path) -> dict[str, dict[str, str]]:
    """Hashes of all that stages made: data, features and checkpoints."""
    found = {}
    for folder in ("t2i", "edit", "frozen", "checkpoint", "reward"):
        for path in sorted((workspace / "smoke" / "runs").glob(f"*/*/{folder}")):
            found[str(path.relative_to(workspace))] = hash_folder(path)
    return found


def test_killed_runs_end_with_the_same_weights(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(whole), whole)
    killed = []
    command = start(cut)
    for stage in KILLED_IN:
        while command.poll() is None and not in_the_middle(cut / "smoke" / "runs" / stage):
            time.sleep(0.02)
        if command.poll() is None:
            kill_everything(command)
            killed.append(stage)
            command = start(cut)
    finish(command, cut)
    # Short stages may end between two looks; most are caught in the middle.
    assert len(killed) >= len(KILLED_IN) - 2, killed
    expected = weights(whole)
    assert len(expected) == 12
    assert weights(cut) == expected
    assert [process for process in psutil.process_iter() if str(cut) in " ".join(_command(process))] == []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
