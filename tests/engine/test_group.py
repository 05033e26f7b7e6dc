"""Groups of worker processes on a real Ray cluster: they meet, fail together, and come back after a loss."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
from dreamline.cluster import connect
from dreamline.engine import group

def meet(folder):
    import torch, torch.distributed as dist
    from dreamline.engine.deepspeed_backend import init_process_group
    init_process_group()
    number = torch.tensor([1.0 + dist.get_rank()])
    dist.all_reduce(number)
    (Path(folder) / str(dist.get_rank())).write_text(str(float(number)))

def fail(folder):
    import torch, torch.distributed as dist
    dist.init_process_group("gloo")
    if dist.get_rank() == 1:
        raise KeyError("sample 7 is broken")
    dist.barrier()

def die(folder, times):
    import torch.distributed as dist
    dist.init_process_group("gloo")
    marks = Path(folder)
    (marks / f"{time.time_ns()}-{dist.get_rank()}").touch()
    dist.barrier()
    if dist.get_rank() == 0 and len(list(marks.iterdir())) <= 2 * int(times):
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    connect(2)
    import ray
    told = {"error": None}
    try:
        group.run_group(globals()[name], tuple(arguments), 2)
    except Exception as error:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        told = {"error": type(error).__name__, "causes": kinds, "text": str(error)}
    from ray.util.placement_group import placement_group_table
    told["rooms"] = [room["state"] for room in placement_group_table().values()]
    print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("group") / "driver.py"
    path.write_text(SCRIPT)
    return path


def run(script: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    told = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{"))  # workers may speak later
    return json.loads(told), done.stdout


def test_workers_meet(script: Path, tmp_path: Path) -> None:
    told, _ = run(script, "meet", str(tmp_path))
    assert told == {"error": None, "rooms": ["REMOVED"]}
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "3.0", "1": "3.0"}


def test_what_a_worker_raises_is_told_and_not_tried_again(script: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    told, output = run(script, "fail", str(tmp_path))
    assert "KeyError" in told["causes"]
    assert "sample 7 is broken" in told["text"]
    assert "starting the group again" not in output
    assert told["rooms"] == ["REMOVED"]
    assert time.monotonic() - began < 150, "the worker that waits in a barrier must not hold the others up"


@pytest.mark.slow
@pytest.mark.parametrize(("times", "error"), [(2, None), (3, "WorkersLost")])
def test_a_lost_worker_has_the_group_started_again(script: Path, tmp_path: Path, times: int, error: str | None) -> None:
    told, output = run(script, "die", str(tmp_path), str(times))
    assert told["error"] == error
    assert output.count("starting the group again") == 2
    assert len(list(tmp_path.iterdir())) == 2 * 3
