"""What the benchmarks share: commands side by side, and the record that each of them leaves."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def run_all(commands: Mapping[str, Sequence[str]], at_a_time: int = 2) -> None:
    """One process per command, so that CPU time is that of the run alone.

    Raises:
        SystemExit: one failed; names it.
    """
    waiting, running = dict(commands), dict[str, subprocess.Popen[bytes]]()
    while waiting or running:
        while waiting and len(running) < at_a_time:
            name = next(iter(waiting))
            running[name] = subprocess.Popen(waiting.pop(name))
        time.sleep(0.5)
        for name, process in list(running.items()):
            if process.poll() is not None:
                if running.pop(name).returncode:
                    raise SystemExit(f"{name} failed; see above. What is finished stays")
                print(f"{name} done", flush=True)


def write_record(path: Path | None, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows (what, ours, theirs, ratio, unit) with the commit and the machine; without a path nothing."""
    from dreamline.result import git_commit

    if path is None:
        return
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"name": name, "commit": git_commit(), "machine": machine, "rows": list(rows)}
    path.write_text(json.dumps(record, indent=1) + "\n")
