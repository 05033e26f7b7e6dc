"""Jobs on a real Ray head: success, failure, attaching, stopping, and what happens when the head is lost."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamline.result import ROOT
from flows.cluster import LocalCluster, RemoteCluster
from flows.config import ClusterConfig
from flows.launch import ClusterLost, Progress, StageFailed, StateUnknown, Stopped, Submission, submit_and_follow
from flows.processes import Ledger, members

# A stage in miniature: notes that it was started, then does what its configuration says.
TOY = """
import os, signal, sys, time
from pathlib import Path
from dreamline.result import StageResult, write_progress
from dreamline.storage import write_text
config = Path(sys.argv[sys.argv.index("--config") + 1])
run_dir, action = config.parent, config.read_text().strip()
with (run_dir / "starts").open("a") as file:
    file.write("x")
for step in range(3):
    write_progress(run_dir, step, 3, "steps", "toy")
    time.sleep(0.2)
while action == "wait" and not (run_dir / "go").exists():
    time.sleep(0.05)
if action == "fail" and (run_dir / "starts").read_text() == "x":
    sys.exit("stage.lr must be positive")
if action == "die" and (run_dir / "starts").read_text() == "x":
    os.kill(os.getpid(), signal.SIGKILL)
result = StageResult(stage="toy", digest="abc", run_dir=str(run_dir), outputs={"checkpoint": "here"})
write_text(run_dir / "result.json", result.model_dump_json())
if action == "linger":
    sys.exit("could not say goodbye")
"""


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    (folder / "toy_stage.py").write_text(TOY)
    return folder


@pytest.fixture(scope="module")
def cluster(toys: Path) -> Iterator[LocalCluster]:
    yield from open_cluster(toys)


def open_cluster(folder: Path) -> Iterator[LocalCluster]:
    ledger = Ledger(folder / "processes.json")
    head = LocalCluster(ClusterConfig(), ledger, folder / "ray.log", threading.Event(), offline=True)
    try:
        head.start()
        head.ready()
        yield head
    finally:
        head.close()
        ledger.close()
    assert members(ledger.session, ledger.started) == []


def submission(toys: Path, run_dir: Path, action: str) -> Submission:
    run_dir.mkdir(exist_ok=True)
    (run_dir / "config.yaml").write_text(action)
    environment = {"PYTHONPATH": f"{toys}:{ROOT}"}
    return Submission("toy", f"toy-{run_dir.parent.name}", "toy_stage", run_dir, "abc", environment)


def follow(cluster: LocalCluster | RemoteCluster, job: Submission, stop: threading.Event | None = None):  # type: ignore[no-untyped-def]
    seen: list[Progress] = []
    result = submit_and_follow(
        cluster, job, lambda step: seen.append(step) if step else None, stop or threading.Event()
    )
    return result, seen


def starts(job: Submission) -> int:
    path = job.run_dir / "starts"
    return len(path.read_text()) if path.is_file() else 0


def wait_for_start(job: Submission, number: int = 1) -> None:
    deadline = time.monotonic() + 60
    while starts(job) < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Background(threading.Thread):
    """Follow a job in another thread."""

    def __init__(self, cluster: LocalCluster | RemoteCluster, job: Submission) -> None:
        super().__init__()
        self.cluster, self.job, self.stop = cluster, job, threading.Event()
        self.error: BaseException | None = None
        self.start()
        wait_for_start(job)

    def run(self) -> None:
        try:
            follow(self.cluster, self.job, self.stop)
        except BaseException as error:
            self.error = error


def test_success_with_progress_and_log(cluster: LocalCluster, toys: Path, tmp_path: Path) -> None:
    job = submission(toys, tmp_path / "run", "succeed")
    result, seen = follow(cluster, job)
    assert result.output("checkpoint") == tmp_path / "run" / "here"
    assert [step.total for step in seen]
    assert "toy_stage" in (job.run_dir / "log.txt").read_text()


def test_failure_tells_the_reason_and_the_next_attempt_has_a_number_of_its_own(
    cluster: LocalCluster, toys: Path, tmp_path: Path
) -> None:
    job = submission(toys, tmp_path / "run", "fail")
    with pytest.raises(StageFailed, match=r"stage\.lr must be positive"):
        follow(cluster, job)
    result, _ = follow(cluster, job)
    assert result.digest == "abc"
    assert starts(job) == 2
    log = (job.run_dir / "log.txt").read_text()
    assert f"{job.job_id}-a1" in log
    assert f"{job.job_id}-a2" in log


def test_a_killed_process_is_no_fault_of_the_stage(cluster: LocalCluster, toys: Path, tmp_path: Path) -> None:
    job = submission(toys, tmp_path / "run", "die")
    with pytest.raises(ClusterLost):
        follow(cluster, job)
    follow(cluster, job)
    assert starts(job) == 2


def test_a_published_result_counts_even_if_the_job_then_falls_over(
    cluster: LocalCluster, toys: Path, tmp_path: Path
) -> None:
    result, _ = follow(cluster, submission(toys, tmp_path / "run", "linger"))
    assert result.digest == "abc"


def test_a_job_under_way_is_attached_to(cluster: LocalCluster, toys: Path, tmp_path: Path) -> None:
    job = submission(toys, tmp_path / "run", "wait")
    first, second = Background(cluster, job), Background(cluster, job)
    time.sleep(1)
    (job.run_dir / "go").touch()
    first.join(30)
    second.join(30)
    assert first.error is None
    assert second.error is None
    assert starts(job) == 1


def test_stop_ends_the_job(cluster: LocalCluster, toys: Path, tmp_path: Path) -> None:
    job = submission(toys, tmp_path / "run", "wait")
    background = Background(cluster, job)
    background.stop.set()
    background.join(30)
    assert isinstance(background.error, Stopped)
    assert str(cluster.client().get_job_status(f"{job.job_id}-a1")) == "STOPPED"


@pytest.mark.slow
def test_a_lost_head_is_replaced_after_its_jobs_are_gone(toys: Path, tmp_path: Path) -> None:
    for cluster in open_cluster(tmp_path):
        job = submission(toys, tmp_path / "run", "wait")
        background = Background(cluster, job)
        assert cluster.process is not None
        cluster.process.kill()
        background.join(30)
        assert isinstance(background.error, ClusterLost)
        cluster.ready()  # ends the orphaned job, then starts a new head
        assert not [process for process in tagged(cluster.ledger) if "toy_stage" in " ".join(process.cmdline())]
        (job.run_dir / "go").touch()
        assert follow(cluster, job)[0].digest == "abc"
        assert starts(job) == 2


@pytest.mark.slow
def test_a_cluster_out_of_reach_means_unknown_and_nothing_is_started_again(toys: Path, tmp_path: Path) -> None:
    for head in open_cluster(tmp_path):
        config = ClusterConfig(lost_after_s=2, python=sys.executable)
        cluster = RemoteCluster(config, head.address, offline=True, access=head.access)
        job = submission(toys, tmp_path / "run", "wait")
        background = Background(cluster, job)
        assert head.process is not None
        head.process.kill()
        background.join(60)
        assert isinstance(background.error, StateUnknown)
        assert starts(job) == 1


def tagged(ledger: Ledger):  # type: ignore[no-untyped-def]
    return members(ledger.session, ledger.started)
