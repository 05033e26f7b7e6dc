"""Jobs on a real Ray head: success, failure, attaching, stopping, and what happens when the head is lost."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dreamline.config import digest
from dreamline.result import ROOT
from flows.cluster import SERVER_PORTS, ClusterError, LocalCluster, RemoteCluster, free_ports
from flows.config import ClusterConfig
from flows.launch import ClusterLost, Progress, StageFailed, StateUnknown, Stopped, Submission, submit_and_follow
from flows.processes import Ledger, members

TOYS = Path(__file__).parent / "toys"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with open_cluster(tmp_path_factory.mktemp("cluster")) as head:
        yield head


@contextmanager
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


def submission(run_dir: Path, action: str) -> Submission:
    run_dir.mkdir(exist_ok=True)
    (run_dir / "config.yaml").write_text(f"{{preset: toy, run_dir: '{run_dir}', stage: {{action: {action}}}}}")
    values = {"stage": {"name": "toy", "action": action}, "inputs": {}, "recipe": "toy_config:1"}
    environment = {"PYTHONPATH": f"{TOYS}:{ROOT}"}
    return Submission("toy", f"toy-{run_dir.parent.name}", "toy_stage", run_dir, digest(values), environment)


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
    deadline = time.monotonic() + 120
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


def test_success_with_progress_and_log(cluster: LocalCluster, tmp_path: Path) -> None:
    job = submission(tmp_path / "run", "succeed")
    result, seen = follow(cluster, job)
    assert result.output("checkpoint") == tmp_path / "run" / "checkpoint"
    assert [step.total for step in seen]
    assert "toy_stage" in (job.run_dir / "log.txt").read_text()


def test_failure_tells_the_reason_and_the_next_attempt_has_a_number_of_its_own(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    job = submission(tmp_path / "run", "fail_once")
    with pytest.raises(StageFailed, match=r"stage\.lr must be positive"):
        follow(cluster, job)
    result, _ = follow(cluster, job)
    assert result.digest == job.digest
    assert starts(job) == 2
    log = (job.run_dir / "log.txt").read_text()
    assert f"{job.job_id}-a1" in log
    assert f"{job.job_id}-a2" in log


def test_a_killed_process_is_no_fault_of_the_stage(cluster: LocalCluster, tmp_path: Path) -> None:
    job = submission(tmp_path / "run", "die_once")
    with pytest.raises(ClusterLost):
        follow(cluster, job)
    follow(cluster, job)
    assert starts(job) == 2


def test_a_published_result_counts_even_if_the_job_then_falls_over(cluster: LocalCluster, tmp_path: Path) -> None:
    job = submission(tmp_path / "run", "linger")
    result, _ = follow(cluster, job)
    assert result.digest == job.digest


def test_a_job_under_way_is_attached_to(cluster: LocalCluster, tmp_path: Path) -> None:
    job = submission(tmp_path / "run", "wait")
    first, second = Background(cluster, job), Background(cluster, job)
    time.sleep(1)
    (job.run_dir / "go").touch()
    first.join(30)
    second.join(30)
    assert first.error is None
    assert second.error is None
    assert starts(job) == 1


def test_stop_ends_the_job(cluster: LocalCluster, tmp_path: Path) -> None:
    job = submission(tmp_path / "run", "wait")
    background = Background(cluster, job)
    background.stop.set()
    background.join(30)
    assert isinstance(background.error, Stopped)
    assert str(cluster.client().get_job_status(f"{job.job_id}-a1")) == "STOPPED"


@pytest.mark.slow
def test_a_lost_head_is_replaced_after_its_jobs_are_gone(tmp_path: Path) -> None:
    with open_cluster(tmp_path) as cluster:
        job = submission(tmp_path / "run", "wait")
        background = Background(cluster, job)
        assert cluster.process is not None
        cluster.process.kill()
        background.join(30)
        assert isinstance(background.error, ClusterLost)
        cluster.ready()  # ends the orphaned job, then starts a new head
        assert not [process for process in tagged(cluster.ledger) if "toy_stage" in " ".join(process.cmdline())]
        (job.run_dir / "go").touch()
        assert follow(cluster, job)[0].digest == job.digest
        assert starts(job) == 2


@pytest.mark.slow
def test_a_cluster_out_of_reach_means_unknown_and_nothing_is_started_again(tmp_path: Path) -> None:
    with open_cluster(tmp_path) as head:
        config = ClusterConfig(lost_after_s=2, python=sys.executable)
        cluster = RemoteCluster(config, head.address, offline=True, access=head.access)
        job = submission(tmp_path / "run", "wait")
        background = Background(cluster, job)
        assert head.process is not None
        head.process.kill()
        background.join(60)
        assert isinstance(background.error, StateUnknown)
        assert starts(job) == 1


def tagged(ledger: Ledger):  # type: ignore[no-untyped-def]
    return members(ledger.session, ledger.started)


def test_a_wrong_address_is_told_at_once() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ClusterError, match=r"no Ray cluster .* see --ray-address"):
        RemoteCluster(ClusterConfig(), f"http://127.0.0.1:{port}", offline=True).start()


def test_ports_are_those_that_nobody_is_given() -> None:
    ports = free_ports(4)
    assert len(set(ports)) == 4
    assert all(port in SERVER_PORTS for port in ports)
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first, last = map(int, file.read().split())
    if first >= SERVER_PORTS.stop:  # the system's default; some machines set it wider
        assert not any(first <= port <= last for port in ports)


def test_a_stranger_on_the_port_is_no_head(tmp_path: Path) -> None:
    """A gRPC server answers a plain request with a frame of HTTP/2, which is no status line."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        ledger = Ledger(tmp_path / "processes.json")
        head = LocalCluster(ClusterConfig(), ledger, tmp_path / "ray.log", threading.Event(), offline=True)
        head.address = f"http://127.0.0.1:{stranger.getsockname()[1]}"

        def answer() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(bytes.fromhex("000012040000000000000300000000"))

        thread = threading.Thread(target=answer)
        thread.start()
        assert not head._answers()
        thread.join()
