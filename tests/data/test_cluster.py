"""Tasks: in this process and on a private Ray cluster, with the same results."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from dreamline.cluster import map_tasks


def square(offset: int, item: int) -> int:
    return item * item + offset


def test_in_process_keeps_order_and_reports_progress() -> None:
    seen: list[tuple[int, int]] = []
    assert map_tasks(partial(square, 1), [3, 1, 2], on_done=lambda n, r: seen.append((n, r))) == [10, 2, 5]
    assert seen == [(1, 10), (2, 2), (3, 5)]
    assert map_tasks(square, []) == []


SCRIPT = """
import json, os, sys, time, signal
from functools import partial
from pathlib import Path
from dreamline.cluster import map_tasks

def work(folder, item):
    import os, time, signal
    marker = Path(folder) / f"{item}"
    if item == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05 * (5 - item))
    return item * item, os.getpid(), os.environ["OMP_NUM_THREADS"]

def wrong(item):
    raise KeyError(f"sample {item}")

if __name__ == "__main__":
    counts = []
    results = map_tasks(partial(work, sys.argv[1]), range(5), workers=2, on_done=lambda n, r: counts.append(n))
    try:
        map_tasks(wrong, [7], workers=2)
        error = ""
    except KeyError as found:
        error = str(found)
    print(json.dumps({"values": [r[0] for r in results], "here": os.getpid(), "pids": [r[1] for r in results],
                      "threads": [r[2] for r in results], "counts": counts, "error": error}))
"""


@pytest.mark.slow
def test_ray_tasks_survive_a_killed_worker(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["values"] == [0, 1, 4, 9, 16]
    assert found["counts"] == [1, 2, 3, 4, 5]
    assert found["here"] not in found["pids"]
    assert set(found["threads"]) == {"1"}
    assert "sample 7" in found["error"]
