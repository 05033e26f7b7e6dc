"""CPU time of a command and of every process that it starts, also of those that outlive their parents.

    python benchmarks/cpu_time.py result.json COMMAND ...

Writes `{"cpu_s": user + system, "wall_s": ..., "code": exit code}`. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # orphans become our children, so that the kernel adds up their time, too
PATIENCE = 20.0  # s for helpers of the command to end after it


def measure(command: list[str]) -> dict[str, float]:
    """Run a command to its end. SystemExit: a process that it started does not end."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    start = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    wall = time.monotonic() - start
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break  # nobody is left
        if not found:
            if time.monotonic() - start > wall + PATIENCE:
                raise SystemExit(f"{command[0]} has ended, but a process that it started has not")
            time.sleep(0.05)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall, "code": code}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(measure(sys.argv[2:])))
