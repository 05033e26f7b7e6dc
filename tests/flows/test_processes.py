"""The ledger ends our own processes in every case, and nobody else's in none."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dreamline.result import ROOT
from flows.processes import TAG, Busy, Ledger, is_locked, locked, members, reap

# A child that ignores SIGTERM, and a grandchild in a session of its own that its parent does not wait for.
STUBBORN = (
    "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
    "print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "processes.json")
    yield made
    made.close()


GENTLE = STUBBORN.replace("signal.signal(signal.SIGTERM, signal.SIG_IGN);", "")


def start(ledger: Ledger, scope: str, log: Path, code: str = GENTLE) -> subprocess.Popen[bytes]:
    process = ledger.start(scope, [sys.executable, "-c", code], os.environ, log)
    wait_for(lambda: log.is_file() and "up" in log.read_text())
    return process


def wait_for(condition, seconds: float = 20) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_session_ends_its_processes_and_folders_but_no_others(tmp_path: Path) -> None:
    foreign = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]),
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={**os.environ, TAG: "another"}),
    ]
    try:
        ledger = Ledger(tmp_path / "processes.json")
        folder = ledger.folder(tmp_path / "scratch")
        folder.mkdir()
        start(ledger, "ray", tmp_path / "log.txt", STUBBORN)
        assert len(members(ledger.session, ledger.started)) == 2
        ledger.close()
        assert members(ledger.session, ledger.started) == []
        assert not folder.exists()
        assert not ledger.path.exists()
        assert ledger.warden.returncode == 0
        assert all(process.poll() is None for process in foreign)
    finally:
        for process in foreign:
            process.kill()
            process.wait()


def test_one_scope_ends_alone(ledger: Ledger, tmp_path: Path) -> None:
    ray = start(ledger, "ray", tmp_path / "ray.txt")
    prefect = start(ledger, "prefect", tmp_path / "prefect.txt")
    ledger.end("ray")
    assert ray.poll() is not None
    assert prefect.poll() is None
    assert len(members(ledger.session, ledger.started)) == 2


def test_processes_older_than_the_ledger_are_not_ours(ledger: Ledger, tmp_path: Path) -> None:
    start(ledger, "ray", tmp_path / "log.txt")
    assert members(ledger.session, started=time.time() + 3600) == []


RUN = """
import os, sys, time
from pathlib import Path
from flows.processes import Ledger
ledger = Ledger(Path(sys.argv[1]))
print(ledger.session, ledger.started, ledger.warden.pid, flush=True)
ledger.start("ray", [sys.executable, "-c", sys.argv[2]], os.environ, Path(sys.argv[1]).with_name("log.txt"))
time.sleep(600)
"""


def killed_run(folder: Path, also_warden: bool) -> tuple[str, float]:
    """Start a run in another process and kill it. Returns its session and start."""
    command = [sys.executable, "-c", RUN, str(folder / "processes.json"), GENTLE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as run:
        assert run.stdout is not None
        session, started, warden = run.stdout.readline().split()
        wait_for(lambda: (folder / "log.txt").is_file() and "up" in (folder / "log.txt").read_text())
        assert len(members(session, float(started))) == 2
        if also_warden:
            psutil.Process(int(warden)).kill()
        run.kill()
    return session, float(started)


def test_the_warden_cleans_up_after_a_killed_run(tmp_path: Path) -> None:
    session, started = killed_run(tmp_path, also_warden=False)
    wait_for(lambda: members(session, started) == [])


def test_the_next_run_cleans_up_when_the_warden_was_killed_too(tmp_path: Path) -> None:
    session, started = killed_run(tmp_path, also_warden=True)
    time.sleep(0.5)
    assert len(members(session, started)) == 2
    Ledger(tmp_path / "processes.json").close()
    assert members(session, started) == []


def test_a_deleted_ledger_does_not_matter_to_the_run_itself(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "processes.json")
    start(ledger, "ray", tmp_path / "log.txt")
    ledger.path.unlink()
    ledger.close()
    assert members(ledger.session, ledger.started) == []


def test_a_ledger_cut_by_a_crash_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    path.write_text('{"session": "a')
    assert reap(path) == 0
    assert not path.exists()


def test_a_preset_is_locked_by_one_run(tmp_path: Path) -> None:
    path = tmp_path / "demo" / "lock"
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
        with pytest.raises(Busy, match=f"process {os.getpid()} works here"), locked(path):
            pass
    assert not is_locked(path)
    with locked(path):
        pass
