"""The real flow on real Prefect and Ray, with a toy at every node: order, resuming, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dreamline.result import ROOT
from flows.processes import TAG

TOYS = Path(__file__).parent / "toys"
ALL = ["data", "encode", "t2i", "edit", "joint", "sft", "reward", "refl", "dmd2"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Run:
    """The toy pipeline in a process of its own."""

    def __init__(self, workspace: Path, *actions: str) -> None:
        self.workspace = workspace
        self.out = workspace / "out.txt"
        with self.out.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(TOYS / "toy_run.py"), str(workspace), *actions],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{TOYS}"},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.out.read_text()

    def wait(self) -> str:
        self.process.wait(timeout=400)
        return self.text

    def wait_for(self, condition: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def let_go(self, stage: str) -> None:
        """Let a waiting toy go on, also in a later run."""
        for path in (self.workspace / "toy" / "runs" / stage).iterdir():
            (path / "go").touch()

    def wait_for_start(self, stage: str, number: int = 1) -> None:
        self.wait_for(lambda: starts(self.workspace, stage) >= number)


Starter = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start runs in the test's folder; those that a failed test leaves behind are stopped."""
    runs: list[Run] = []

    def begin(*actions: str) -> Run:
        runs.append(Run(tmp_path, *actions))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait(timeout=60)


def starts(workspace: Path, stage: str) -> int:
    return sum(len(path.read_text()) for path in (workspace / "toy" / "runs" / stage).glob("*/starts"))


def leftovers(workspace: Path) -> list[str]:
    """Processes that still work in the workspace, or carry a session's tag and were started for it."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            tagged = TAG in process.environ() and str(workspace) in process.environ().get("PREFECT_HOME", "")
        except psutil.Error:
            continue
        if str(workspace) in command or tagged:
            found.append(command[:200])
    return found


def gone(workspace: Path, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while leftovers(workspace):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_everything_then_nothing(tmp_path: Path, start: Starter) -> None:
    text = start().wait()
    assert f"summary {ALL}" in text
    assert leftovers(tmp_path) == []
    order = [line.split()[1].rstrip(":") for line in text.splitlines() if "done in" in line]
    assert [name for name in order if not name.startswith("eval-")] == ALL
    assert all(order.index(f"eval-{name}") == order.index(name) + 1 for name in ("t2i", "dmd2"))
    assert (tmp_path / "toy" / "report.html").is_file()

    began = time.monotonic()
    again = start().wait()
    assert time.monotonic() - began < 20
    assert "all 11 stages are done" in again
    assert "imported []" in again
    assert all(starts(tmp_path, name) == 1 for name in ALL)


def test_a_failure_is_told_once_and_nothing_stays_behind(tmp_path: Path, start: Starter) -> None:
    text = start("edit=fail_once").wait()
    assert "StageFailed edit:" in text
    assert "stage.lr must be positive" in text
    assert "Traceback" not in text
    assert starts(tmp_path, "edit") == 1
    assert starts(tmp_path, "joint") == 0
    assert leftovers(tmp_path) == []


def test_a_loss_that_is_no_number_stops_the_chain(tmp_path: Path, start: Starter) -> None:
    text = start("t2i=diverge").wait()
    assert "GateRefused t2i: train/loss/toy not finite" in text
    assert starts(tmp_path, "edit") == 0


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(tmp_path: Path, start: Starter) -> None:
    run = start("t2i=wait")
    run.wait_for_start("t2i")
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    text = run.wait()
    assert "Stopped" in text
    assert "Traceback" not in text
    assert leftovers(tmp_path) == []
    run.let_go("t2i")
    assert f"summary {ALL}" in start("t2i=wait").wait()
    assert starts(tmp_path, "data") == 1


def test_sigterm_while_servers_start_stops_cleanly(tmp_path: Path, start: Starter) -> None:
    run = start()
    run.wait_for(lambda: (tmp_path / "toy" / "logs" / "ray.log").is_file())
    run.process.send_signal(signal.SIGTERM)
    text = run.wait()
    assert "Stopped" in text
    assert "Traceback" not in text
    assert leftovers(tmp_path) == []


def test_kill_of_the_command_alone_leaves_nothing_behind(tmp_path: Path, start: Starter) -> None:
    run = start("t2i=wait")
    run.wait_for_start("t2i")
    run.process.kill()
    run.process.wait()
    assert gone(tmp_path)


def test_kill_of_the_whole_tree_and_then_the_same_command(tmp_path: Path, start: Starter) -> None:
    run = start("t2i=wait")
    run.wait_for_start("t2i")
    tree = [*psutil.Process(run.process.pid).children(recursive=True), psutil.Process(run.process.pid)]
    for process in tree:
        process.kill()
    run.process.wait()
    run.let_go("t2i")
    assert f"summary {ALL}" in start("t2i=wait").wait()
    assert starts(tmp_path, "data") == 1
    assert starts(tmp_path, "t2i") == 2
    assert leftovers(tmp_path) == []
    with sqlite3.connect(tmp_path / "toy" / "prefect" / "prefect.db") as database:
        states = [
            state for (state,) in database.execute("select state_type from flow_run where state_type != 'COMPLETED'")
        ]
    assert set(states) == {"CRASHED"}


def test_a_lost_head_is_replaced_and_the_stage_repeated(tmp_path: Path, start: Starter) -> None:
    run = start("t2i=wait")
    run.wait_for_start("t2i")
    ledger = json.loads((tmp_path / "toy" / "processes.json").read_text())
    (head,) = [process["pid"] for process in ledger["processes"] if process["scope"] == "ray"]
    os.kill(head, signal.SIGKILL)
    run.wait_for_start("t2i", 2)
    run.let_go("t2i")
    assert f"summary {ALL}" in run.wait()
    assert leftovers(tmp_path) == []


def test_two_runs_of_one_preset_do_not_collide(tmp_path: Path, start: Starter) -> None:
    run = start("data=wait")
    run.wait_for_start("data")
    second = subprocess.run(
        [sys.executable, str(TOYS / "toy_run.py"), str(tmp_path), "data=wait"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{TOYS}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"Busy {tmp_path / 'toy'}: process {run.process.pid} works here" in second.stdout
    run.process.send_signal(signal.SIGINT)
    run.wait()
