"""Where jobs run: a Ray head of our own on this machine, or a cluster that is there already."""

from __future__ import annotations

import http.client
import os
import random
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dreamline.config import Job
from dreamline.result import ROOT
from flows.config import ClusterConfig
from flows.processes import Ledger

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}
# Below these, Ray gives ports to its workers; above, the system gives them to any socket that asks for one, so that a
# port found free would be taken by one of Ray's own servers before ours is up.
SERVER_PORTS = range(20_000, 32_768)
REQUEST_TIMEOUT_S = 30
_SOCKET_PATH_LIMIT = 107 - len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")


class ClusterError(RuntimeError):
    """The cluster cannot be used; the message says why and what to do."""


class Cluster(Protocol):
    """What launching a job needs to know of a cluster."""

    @property
    def quiet_s(self) -> float:
        """Seconds that a job without a record must be silent before it is taken for dead."""

    @property
    def lost_after_s(self) -> float:
        """Seconds out of reach after which the state of a job is called unknown."""

    @property
    def poll_s(self) -> float:
        """Seconds between two looks at a job."""

    def ready(self) -> None:
        """Return once jobs can be submitted."""

    def alive(self) -> bool:
        """False when the cluster, and all its jobs with it, are known to be gone."""

    def client(self) -> Any:
        """A JobSubmissionClient."""

    def entrypoint(self, module: str, config: Path) -> str:
        """Command line of a job on this cluster."""

    def environment(self, job: Job) -> dict[str, str]:
        """Environment of a job; it is shown in Ray's dashboard, so it holds no secrets."""


def job_environment(job: Job, path: str, gpus: bool, offline: bool) -> dict[str, str]:
    """What every job gets, on whichever cluster."""
    environment = {
        **QUIET,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": str(job.runtime.threads),
        "MKL_NUM_THREADS": str(job.runtime.threads),
        "OMP_WAIT_POLICY": "passive",  # spinning threads starve the other workers of a shared core
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # report() waits for the controller to look
        "RAY_DEDUP_LOGS": "0",
        "WDS_SECURE": "1",  # no pickles out of shards
        "TOKENIZERS_PARALLELISM": "false",
    }
    if offline:
        environment["HF_HUB_OFFLINE"] = "1"
    if not gpus:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


class LocalCluster:
    """A Ray head that this run starts and ends, reachable with a token that only this user can read."""

    quiet_s = 0.0  # its jobs carry the session's tag and are ended before a new head starts
    lost_after_s = 120.0
    poll_s = 0.25

    def __init__(self, config: ClusterConfig, ledger: Ledger, log: Path, stop: threading.Event, offline: bool) -> None:
        self.config, self.ledger, self.log, self.stop, self.offline = config, ledger, log, stop, offline
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ""
        self._guard = threading.Lock()
        self._ready = False
        self.token = secrets.token_hex(32)

    @property
    def access(self) -> dict[str, str]:
        """HTTP headers that let us in."""
        return {"Authorization": f"Bearer {self.token}"}

    def start(self) -> None:
        """Start the head; it takes seconds until `ready` returns."""
        folder = self.ledger.folder(short_folder())
        token_file = folder / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(self.token)
        # Jobs inherit the token. The mode is always set: unset, Ray decides by what lies in the home folder.
        access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file)}
        theirs = {name: value for name, value in os.environ.items() if name not in ("RAY_AUTH_TOKEN", "RAY_ADDRESS")}
        port, dashboard, client, agent, metrics = free_ports(5)
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", "--no-monitor"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"),
            *("--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder / 'ray'}"),
            *(f"--num-cpus={self.config.cpus}", f"--num-gpus={self.config.gpus}"),
            f"--object-store-memory={self.config.object_store_mb * 2**20}",
        ]
        # Ray's own processes rename themselves; without SPT_NOENV that would wipe the tag out of their environment.
        # Workers would have the lowest priority, and starve next to anything else that this machine does.
        environment = {
            "RAY_worker_niceness": "0",
            **theirs,
            **access,
            **QUIET,
            "SPT_NOENV": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        self.process = self.ledger.start("ray", command, environment, self.log)
        self.address = f"http://127.0.0.1:{dashboard}"
        self._ready = False

    def alive(self) -> bool:
        """Whether the head still runs."""
        return self.process is not None and self.process.poll() is None

    def ready(self, timeout_s: float = 300) -> None:
        """Wait until the head takes jobs; a head that died is started again, once everything of the old one is gone.

        Raises:
            ClusterError: it does not come up.
        """
        with self._guard:
            if self._ready and self.alive():
                return
            if self.process is not None and not self.alive():
                self.ledger.end("ray")
                self.process = None
            if self.process is None:
                self.start()
            deadline = time.monotonic() + timeout_s
            while not self._answers():
                if self.stop.wait(0.1):
                    return
                if not self.alive() or time.monotonic() > deadline:
                    raise ClusterError(f"the local Ray head did not start; its log is {self.log}\n{tail(self.log)}")
            self._ready = True

    def _answers(self) -> bool:
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers=self.access)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except (http.client.HTTPException, OSError):  # URLError is one of the latter
            return False

    def client(self) -> Any:
        """A client of the head."""
        return job_client(self.address, self.access)

    def entrypoint(self, module: str, config: Path) -> str:
        """Command line of a job, with this very interpreter."""
        return shlex.join([sys.executable, "-m", module, "--config", str(config)])

    def environment(self, job: Job) -> dict[str, str]:
        """Environment of a job."""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = job_environment(job, path, self.config.gpus > 0, self.offline)
        # Ray's own helpers in a job would look for any cluster on this machine, and give up when there are two.
        return {**environment, "RAY_API_SERVER_ADDRESS": self.address}

    def close(self) -> None:
        """Ask the head to end, so that it closes its files; whatever is left is the ledger's."""
        if self.process is not None and self.alive():
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()


class RemoteCluster:
    """A cluster that others run. Its nodes see the workspace under the same path, and this repository at `root`."""

    poll_s = 2.0

    def __init__(
        self, config: ClusterConfig, address: str, offline: bool, access: dict[str, str] | None = None
    ) -> None:
        self.config, self.address, self.offline, self.access = config, address, offline, access
        self.quiet_s, self.lost_after_s = config.quiet_s, config.lost_after_s

    def start(self) -> None:
        """Nothing is started; but a wrong address is better known now than after hours.

        Raises:
            ClusterError: nobody answers there.
        """
        try:
            self.client()
        except (ConnectionError, RuntimeError) as error:
            raise ClusterError(
                f"{self.address}: no Ray cluster to submit jobs to ({error}); see --ray-address"
            ) from error

    def ready(self) -> None:
        """A cluster that is there needs no start."""

    def alive(self) -> bool:
        """Never known to be gone from here: out of reach is not dead."""
        return True

    def client(self) -> Any:
        """A client; without `access` it takes the token of RAY_AUTH_TOKEN_PATH, as Ray's own tools do."""
        return job_client(self.address, self.access)

    def entrypoint(self, module: str, config: Path) -> str:
        """Command line of a job, with the interpreter of the nodes."""
        return shlex.join([self.config.python, "-m", module, "--config", str(config)])

    def environment(self, job: Job) -> dict[str, str]:
        """Environment of a job."""
        return job_environment(job, self.config.root or str(ROOT), True, self.offline)

    def close(self) -> None:
        """Others run it."""


def job_client(address: str, headers: dict[str, str] | None = None) -> Any:
    """A JobSubmissionClient whose requests end: Ray's own would wait for ever on a connection that went dead."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(address, headers=headers)
    client._do_request = partial(client._do_request, timeout=REQUEST_TIMEOUT_S)
    return client


def short_folder() -> Path:
    """A new private folder in the system's temporary folder, short enough for Ray's sockets in it."""
    for place in (tempfile.gettempdir(), "/tmp"):
        if len(place) + len("/dreamline-12345678") <= _SOCKET_PATH_LIMIT and os.access(place, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="dreamline-", dir=place))
    raise ClusterError(
        f"the path of the temporary folder {tempfile.gettempdir()} is too long for Ray; set TMPDIR to /tmp"
    )


def no_proxy() -> dict[str, str]:
    """Settings that keep requests to this machine away from a proxy."""
    value = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
    return {"no_proxy": value, "NO_PROXY": value}


def free_ports(number: int) -> list[int]:
    """Different ports of SERVER_PORTS that nobody listens on now.

    Raises:
        ClusterError: there are not that many.
    """
    ports: list[int] = []
    for port in random.sample(SERVER_PORTS, len(SERVER_PORTS)):
        if len(ports) == number:
            break
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
    if len(ports) < number:
        raise ClusterError(f"only {len(ports)} of {number} ports are free from {SERVER_PORTS[0]} to {SERVER_PORTS[-1]}")
    return ports


def tail(log: Path, lines: int = 25) -> str:
    """Last lines of a log."""
    if not log.is_file():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
