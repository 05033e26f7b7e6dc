"""Tasks: in this process and on a private Ray cluster, with the same results."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

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


def run_script(script: Path, *parameters: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, str(script), *parameters]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
def test_ray_tasks_survive_a_killed_worker(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = run_script(script, str(tmp_path))
    assert found["values"] == [0, 1, 4, 9, 16]
    assert found["counts"] == [1, 2, 3, 4, 5]
    assert found["here"] not in found["pids"]
    assert set(found["threads"]) == {"1"}
    assert "sample 7" in found["error"]


ATTACH = """
import json, os, subprocess, sys

if len(sys.argv) > 1:  # the driver of a job: finds the cluster in its environment
    from dreamline.cluster import map_tasks

    def work(item):
        import os
        return os.getpid()

    print(json.dumps({"tasks": map_tasks(work, range(3)), "here": os.getpid()}))
else:
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    import ray
    context = ray.init(num_cpus=1, include_dashboard=False)
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    with open(__file__ + ".out", "w") as out:
        subprocess.run([sys.executable, __file__, "driver"], check=True, stdout=out)
    print(json.dumps({"nodes": len(ray.nodes()), "alive": ray.nodes()[0]["Alive"]}))
"""


@pytest.mark.slow
def test_one_worker_attaches_to_the_cluster_of_its_environment(tmp_path: Path) -> None:
    script = tmp_path / "attach.py"
    script.write_text(ATTACH)
    assert run_script(script) == {"nodes": 1, "alive": True}
    found = json.loads(Path(f"{script}.out").read_text().splitlines()[-1])
    assert found["here"] not in found["tasks"]
    assert len(found["tasks"]) == 3


def test_workers_of_a_private_cluster_do_not_step_back() -> None:
    """By default Ray gives its workers the lowest priority."""
    code = "import os; from dreamline.cluster import map_tasks; print({*map_tasks(os.nice, [0, 0], 2)} == {os.nice(0)})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert told.stdout.strip() == "True", told.stderr
