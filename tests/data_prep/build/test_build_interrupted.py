"""Killed at any moment, a build goes on to the very same files; memory does not grow with the number of samples."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from data_prep.build.config import BuildConfig
from data_prep.build.published import read_dataset
from data_prep.build.run import run_build
from data_prep.build.store import STAGING, open_store
from data_prep.build.verify import verify
from dreamline.storage import hash_folder

ROOT = Path(__file__).parents[3]
NUM_KILLS = 20
Make = Callable[..., BuildConfig]


def folders(root: Path, fill: Callable[[Path, range], Path], count: int, each: int) -> list[dict[str, Any]]:
    return [
        {
            "kind": "folder",
            "caption": "filename",
            "name": f"part-{number}",
            "path": str(fill(root / f"part {number}", range(number * each, (number + 1) * each))),
        }
        for number in range(count)
    ]


def tars(place: Path) -> dict[str, str]:
    return {name: digest for name, digest in hash_folder(place).items() if name.endswith(".tar")}


@pytest.fixture
def processes() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_prep.build.run", "pyarrow.parquet", "simplejpeg"])
    return context


@pytest.mark.slow
def test_twenty_kills_change_nothing(
    tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path], processes: ForkServerContext
) -> None:
    sources = folders(tmp_path / "in", pictures, count=6, each=12)
    settings: dict[str, Any] = {"sources": sources, "shards": {"max_samples": 9}, "image": {"shorter_side": 48}}
    whole = tmp_path / "whole"
    started = time.monotonic()
    child = processes.Process(target=run_build, args=(configured(whole, **settings),))
    child.start()
    child.join(120)
    usual = time.monotonic() - started
    expected, info = tars(whole), read_dataset(open_store(str(whole)))
    assert info is not None
    assert len(expected) == 8
    rng, kills, rounds = random.Random(7), 0, 0
    while kills < NUM_KILLS:
        place = tmp_path / f"killed {rounds}"
        rounds += 1
        for _ in range(4):  # kills of one build, if it does not end before
            child = processes.Process(target=run_build, args=(configured(place, **settings),))
            child.start()
            child.join(rng.uniform(0.1, 1.0) * usual)
            killed = child.is_alive()
            if killed:
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
            child.join(60)
            kills += killed
            published = read_dataset(open_store(str(place)))
            assert published is None or verify(str(place)).ok
            if not killed:
                break
        child = processes.Process(target=run_build, args=(configured(place, **settings),))
        child.start()
        child.join(120)
        resumed = read_dataset(open_store(str(place)))
        assert resumed is not None
        assert resumed.fingerprint == info.fingerprint
        assert tars(place) == expected
        assert {shard.name for shard in resumed.shards} == set(expected)
        assert not (place / STAGING).exists()
        assert not list(place.rglob("*.tmp-*"))


CLUSTER = """
import json, os, signal, sys, threading, time
from pathlib import Path
import psutil, ray, yaml
from ray.cluster_utils import Cluster
from data_prep.build.config import load_build
from data_prep.build.run import run_build

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, logging_level="ERROR")
config = load_build(sys.argv[1])
staging = Path(config.output) / ".staging"
lost = []

def disturb():
    seen = set()
    while len(seen) < 2:
        time.sleep(0.05)
        seen = {path for path in staging.glob("*/index/*.parquet")}
    workers = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::_call")]
    for process in workers[:1]:
        os.kill(process.pid, signal.SIGKILL)
        lost.append("worker")
    cluster.remove_node(nodes[0], allow_graceful=False)
    lost.append("node")

thread = threading.Thread(target=disturb)
thread.start()
outcome = run_build(config, lambda step: print(step.text, file=sys.stderr, flush=True))
thread.join()
Path(sys.argv[2]).write_text(json.dumps({"lost": lost, **outcome.summary()}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_lost_worker_and_a_lost_node_change_nothing(
    tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path]
) -> None:
    import yaml

    sources = folders(tmp_path / "in", pictures, count=16, each=12)
    settings: dict[str, Any] = {"sources": sources, "shards": {"max_samples": 20}}
    expected = run_build(configured(tmp_path / "whole", **settings))
    config = tmp_path / "mine.yaml"
    values = configured(tmp_path / "out", **settings).model_dump(mode="json") | {"workers": 3}
    config.write_text(yaml.safe_dump(values))
    script = tmp_path / "script.py"
    script.write_text(CLUSTER)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
    answer = tmp_path / "answer.json"  # Ray may have the last word on stdout
    command = [sys.executable, str(script), str(config), str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(answer.read_text())
    assert found["lost"] == ["worker", "node"]
    assert found["fingerprint"] == expected.info.fingerprint
    assert tars(tmp_path / "out") == tars(tmp_path / "whole")
    assert verify(str(tmp_path / "out")).ok


def _measure(config: BuildConfig, answer: Any) -> None:
    outcome = run_build(config)
    used = resource.getrusage(resource.RUSAGE_SELF)
    answer.put((outcome.increment.num_kept, used.ru_maxrss / 1024, used.ru_utime + used.ru_stime))


@pytest.mark.slow
def test_memory_is_flat_and_so_is_the_time_of_a_sample(
    tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path], processes: ForkServerContext
) -> None:
    found = []
    for count in (1000, 10_000):
        folder = pictures(tmp_path / f"{count}", range(count))
        answer = processes.Queue()
        config = configured(tmp_path / f"out {count}", folder, shards={"max_samples": 500})
        child = processes.Process(target=_measure, args=(config, answer))
        child.start()
        found.append(answer.get(timeout=280))
        child.join(60)
    (small, small_mb, small_s), (large, large_mb, large_s) = found
    print(f"{small}: {small_mb:.0f} MiB, {small_s:.1f} s; {large}: {large_mb:.0f} MiB, {large_s:.1f} s")
    assert large == 10 * small == 10_000
    assert large_mb < 1.15 * small_mb
    assert large_s / large < 1.3 * small_s / small
