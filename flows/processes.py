"""The processes of a run, so that none outlives it: each carries the session's tag in its environment.

Ending them is by tag alone: a process that does not carry the tag of our own ledger is never touched. A run has a
warden, a small process that waits for the run to end in whatever way (also by SIGKILL) and then ends what is left.
Should the warden be killed too, the next run finds the ledger and does the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from dreamline.result import ROOT
from dreamline.storage import write_json

TAG = "DREAMLINE_SESSION"
_PR_SET_CHILD_SUBREAPER = 36
_CLOCK_SLACK_S = 2.0  # resolution of process start times, and the difference between two clocks


class Busy(RuntimeError):
    """Another run works on the same preset."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for as long as this process lives.

    Raises:
        Busy: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        for last in (False, False, True):  # `status` asks for the lock too, for an instant
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last:
                    file.seek(0)
                    owner = file.read().strip() or "unknown"
                    raise Busy(f"{path.parent}: process {owner} works here; wait for it, or use --workspace") from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(path: Path) -> bool:
    """Whether a run holds the lock now."""
    if not path.is_file():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Ledger:
    """What this run has started, kept in a file."""

    def __init__(self, path: Path) -> None:
        """Begin a new session. What an earlier one left behind is ended and removed first."""
        reap(path)
        self.path = path
        self.session = uuid.uuid4().hex
        self.started = psutil.Process().create_time()
        self.processes: list[dict[str, Any]] = []
        self.folders: list[str] = []
        self._write()
        adopt_orphans()
        self.warden = subprocess.Popen(
            [sys.executable, "-m", "flows.processes", str(path), self.session, str(self.started)],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C in a terminal is not for it
        )

    def start(
        self, scope: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own, tagged with session and scope; its output goes to a file."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                env={**environment, TAG: f"{self.session}/{scope}"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(process.pid).create_time()
            self.processes.append({"pid": process.pid, "started": started, "scope": scope})
        self._write()
        return process

    def folder(self, path: Path) -> Path:
        """Note a temporary folder, so that it is removed with the session."""
        self.folders.append(str(path))
        self._write()
        return path

    def end(self, scope: str) -> None:
        """End every process of one scope; the session goes on."""
        finish(f"{self.session}/{scope}", self.started)
        self.processes = [process for process in self.processes if process["scope"] != scope]
        self._write()

    def close(self) -> None:
        """End every process of the session, remove its folders and let the warden go."""
        _end_session(self._state())
        self.path.unlink(missing_ok=True)
        self.warden.stdin.close()  # type: ignore[union-attr]
        self.warden.wait(timeout=30)
        bury_children()

    def _state(self) -> dict[str, Any]:
        return {
            "session": self.session,
            "started": self.started,
            "processes": self.processes,
            "folders": self.folders,
        }

    def _write(self) -> None:
        write_json(self.path, self._state())


def members(tag: str, started: float) -> list[psutil.Process]:
    """Processes whose tag begins with `tag` and that began after `started`, but for this very one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            tagged = process.environ().get(TAG, "").startswith(tag)
            if tagged and process.pid != os.getpid() and process.create_time() >= started - _CLOCK_SLACK_S:
                found.append(process)
    return found


def reap(path: Path) -> int:
    """End what the session of a ledger left behind, then remove the ledger. For the holder of the lock.

    Returns:
        How many processes were ended.
    """
    ledger = _read(path)
    ended = _end_session(ledger) if ledger else 0
    path.unlink(missing_ok=True)
    return ended


def finish(tag: str, started: float, grace_s: float = 3.0) -> int:
    """End the processes with a tag: SIGTERM first, SIGKILL after `grace_s`. Returns how many there were."""
    ended = end(members(tag, started), grace_s)
    for _ in range(10):
        late = members(tag, started)  # what those started while they were ending
        if not late:
            break
        ended += end(late, 0)
    return ended


def _end_session(ledger: Mapping[str, Any]) -> int:
    ended = finish(ledger["session"], ledger["started"])
    for folder in ledger["folders"]:
        shutil.rmtree(folder, ignore_errors=True)
    return ended


def end(processes: Sequence[psutil.Process], grace_s: float) -> int:
    """SIGTERM, then SIGKILL for those that are still there after `grace_s`. Returns how many there were."""
    if grace_s > 0:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, remaining = psutil.wait_procs(processes, timeout=grace_s)
    else:
        remaining = list(processes)
    for process in remaining:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(remaining, timeout=5)
    return len(processes)


def adopt_orphans() -> None:
    """Have orphaned descendants become our children (Linux), so that they do not stay behind as zombies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury_children() -> None:
    """Collect the exit status of adopted children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return value


def keep_watch(path: Path, session: str, started: float, life_line: IO[bytes]) -> None:
    """The warden: wait until the run's end of the pipe closes, then end what is left of its session."""
    life_line.read()
    ledger = _read(path)
    mine = ledger is not None and ledger["session"] == session  # else a new run has taken over, or the file is gone
    _end_session({"session": session, "started": started, "folders": ledger["folders"] if ledger and mine else []})


if __name__ == "__main__":
    keep_watch(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.stdin.buffer)
