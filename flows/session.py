"""One run of a plan: the cluster it uses, what it shows, how it is stopped, and how one stage is carried out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from dreamline.config import Input, dump
from dreamline.result import RESULT, StageResult, source_hash
from flows.cluster import Cluster, LocalCluster, RemoteCluster, no_proxy
from flows.display import Display
from flows.gates import check_finite
from flows.launch import Submission, submit_and_follow
from flows.processes import Ledger, locked
from flows.server import EphemeralServer
from flows.stages import Plan, PlannedStage
from flows.summary import record_scores

_current: ContextVar[Session | None] = ContextVar("session", default=None)


@dataclass
class Session:
    """A run under way."""

    plan: Plan
    cluster: Cluster
    display: Display
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, name: str) -> StageResult:
        """Carry out one stage unless it is done, and check its result.

        Raises:
            GateRefused, StageFailed, ClusterLost, StateUnknown, Stopped: see `gates` and `launch`.
        """
        planned = self.plan.stages[name]
        result = planned.result()
        if result is not None:
            self.display.done_already(name, result, older_code=result.source != source_hash())
        else:
            result = self._carry_out(planned)
            if name.startswith("eval-"):
                record_scores(self.plan, self.plan.results(), [name])
        check_finite(name, result)
        return result

    def _carry_out(self, planned: PlannedStage) -> StageResult:
        planned.run_dir.mkdir(parents=True, exist_ok=True)
        (planned.run_dir / RESULT).unlink(missing_ok=True)  # its outputs are gone, or it would count as done
        job = planned.job.model_copy(update={"inputs": {**planned.job.inputs, **self._inputs(planned)}})
        submission = Submission(
            name=planned.name,
            job_id=f"{self.plan.preset}-{planned.name}-{planned.digest}",
            module=planned.module,
            run_dir=planned.run_dir,
            digest=planned.digest,
            environment=self.cluster.environment(job),
        )
        dump(job, submission.config)
        show = self.display.watch(planned.name)
        result = None
        try:
            result = submit_and_follow(self.cluster, submission, show, self.stop)
        finally:
            self.display.end(planned.name, result)
        return result

    def _inputs(self, planned: PlannedStage) -> dict[str, Input]:
        """Inputs where their producers say they are."""
        results = self.plan.results()
        inputs = {}
        for name, source in planned.sources.items():
            producer, _, output = source.partition(".")
            inputs[name] = Input(path=str(results[producer].output(output)), digest=results[producer].digest)
        return inputs


def current() -> Session:
    """The session that the running flow belongs to."""
    session = _current.get()
    if session is None:
        raise RuntimeError("no session is open; call the flow inside open_session()")
    return session


@contextmanager
def open_session(plan: Plan, display: Display, stop: threading.Event) -> Iterator[Session]:
    """Lock the preset, end what an earlier run left behind, start what is needed, and end all of it afterwards.

    Raises:
        Busy: another run works on the preset.
        ClusterError: a server did not start.
    """
    with ExitStack() as stack:
        stack.enter_context(locked(plan.preset_dir / "lock"))
        ledger = Ledger(plan.preset_dir / "processes.json")
        stack.callback(ledger.close)
        os.environ.update(no_proxy())
        address, logs = plan.config.cluster.address, plan.preset_dir / "logs"
        cluster: LocalCluster | RemoteCluster
        if address is None:
            cluster = LocalCluster(plan.config.cluster, ledger, logs / "ray.log", stop, plan.config.offline)
        else:
            cluster = RemoteCluster(plan.config.cluster, address, plan.config.offline)
        stack.callback(cluster.close)
        cluster.start()  # a local head's start and the other server's overlap
        if plan.config.prefect_url is None:
            server = EphemeralServer(ledger, plan.preset_dir / "prefect", logs / "prefect.log")
            stack.callback(server.close)
            server.start()
            server.ready(stop)
        else:
            os.environ["PREFECT_API_URL"] = plan.config.prefect_url
        session = Session(plan, cluster, display, stop)
        token = _current.set(session)
        stack.callback(_current.reset, token)
        yield session
