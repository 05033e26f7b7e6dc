"""A Prefect server that lives as long as a run, on 127.0.0.1 with its database in the workspace."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from flows.cluster import ClusterError, free_ports, tail
from flows.processes import Ledger


class EphemeralServer:
    """Prefect's own ephemeral server, started by us: at once, in a process group that Ctrl-C does not reach."""

    def __init__(self, ledger: Ledger, home: Path, log: Path) -> None:
        self.ledger, self.home, self.log = ledger, home, log
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start(self) -> None:
        """Start it, and point Prefect in this process to it. Must come before Prefect is imported."""
        (port,) = free_ports(1)
        self.address = f"http://127.0.0.1:{port}/api"
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            del os.environ[name]  # a profile or a cloud workspace of the user has no part in a local run
        os.environ.update(
            {
                "PREFECT_HOME": str(self.home),
                "PREFECT_API_URL": self.address,
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "PREFECT_LOGGING_LEVEL": "CRITICAL",  # the display tells what happens
                "DO_NOT_TRACK": "1",
            }
        )
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
        ephemeral = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        self.process = self.ledger.start("prefect", command, {**os.environ, **ephemeral}, self.log)

    def ready(self, stop: threading.Event, timeout_s: float = 300) -> None:
        """Wait until it answers.

        Raises:
            ClusterError: it does not come up.
        """
        deadline = time.monotonic() + timeout_s
        while not self._answers() and not stop.wait(0.1):
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                raise ClusterError(f"the Prefect server did not start; its log is {self.log}\n{tail(self.log)}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (http.client.HTTPException, OSError):  # URLError is one of the latter
            return False

    def close(self) -> None:
        """Ask it to end; whatever is left is the ledger's."""
        if self.process is not None:
            self.process.terminate()
