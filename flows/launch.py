"""Submit a job to Ray and follow it to its result: success, failure, or unknown. Unknown never submits again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from dreamline.config import ConfigError
from dreamline.result import PROGRESS, StageResult, read_result
from flows.cluster import Cluster

LOG = "log.txt"
MAX_ATTEMPTS = 50  # submission ids tried before giving up
END_S = 60.0  # seconds a job may take to end after its result is there
INFRASTRUCTURE = ("JOB_SUPERVISOR", "RUNTIME_ENV_SETUP_FAILURE")  # error types that are not the job's own doing


class StageFailed(RuntimeError):
    """The job itself failed; running it again would fail again."""


class ClusterLost(RuntimeError):
    """The job ended for a reason outside of it (a lost head, a killed process); a repeat may succeed."""


class StateUnknown(RuntimeError):
    """The cluster is out of reach and the job may still run; the same command attaches to it later."""


class Stopped(RuntimeError):
    """The user asked to stop."""


class Status(Enum):
    """What is known of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    MISSING = "missing"  # the cluster answers, and has no record of it
    UNKNOWN = "unknown"  # the cluster does not answer


@dataclass(frozen=True)
class View:
    """A job as its cluster shows it now."""

    status: Status
    entrypoint: str = ""
    message: str = ""
    infrastructure: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a job is, from RUN/progress.json."""

    done: int
    total: int
    unit: str
    message: str
    metrics: Mapping[str, float]
    updated: float


@dataclass(frozen=True)
class Submission:
    """What to run: the same values give the same submission ids."""

    name: str
    job_id: str
    module: str
    run_dir: Path
    digest: str
    environment: Mapping[str, str]

    @property
    def config(self) -> Path:
        """The resolved job."""
        return self.run_dir / "config.yaml"


def read_progress(run_dir: Path) -> Progress | None:
    """Progress of a job, or None while there is none."""
    try:
        return Progress(**json.loads((run_dir / PROGRESS).read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def look(client: Any, job_id: str) -> View:
    """Ask the cluster about a job; never raises for a cluster that is out of reach.

    Raises:
        ConfigError: the cluster refuses us.
    """
    try:
        info = client.get_job_info(job_id)
    except Exception as error:
        _refused(error)
        missing = isinstance(error, RuntimeError) and "does not exist" in str(error)
        return View(Status.MISSING if missing else Status.UNKNOWN, message=_first_line(error))
    kind, code = info.error_type or "", info.driver_exit_code
    status = {
        "PENDING": Status.WAITING,
        "RUNNING": Status.RUNNING,
        "SUCCEEDED": Status.SUCCEEDED,
    }.get(str(info.status.value), Status.FAILED)
    killed = code is not None and (code < 0 or code in (137, 143))  # by a signal: out of memory, preemption
    return View(status, info.entrypoint or "", info.message or "", killed or kind.startswith(INFRASTRUCTURE))


def submit_and_follow(
    cluster: Cluster,
    submission: Submission,
    on_progress: Callable[[Progress | None], None],
    stop: threading.Event,
) -> StageResult:
    """Run one job to its end, or attach to it where it runs already.

    Args:
        cluster: where.
        submission: what.
        on_progress: called at every look.
        stop: set it to have the job stopped and `Stopped` raised.

    Returns:
        The result that the job published, with the digest of the submission.

    Raises:
        StageFailed: the job failed; the message ends with its last lines.
        ClusterLost: the job is gone, and may be submitted again.
        StateUnknown: the cluster has been out of reach for too long.
        Stopped: `stop` was set, and the job has been stopped.
    """
    client = _connect(cluster, stop)
    job_id = _submit_or_attach(cluster, client, submission)
    seen, published = time.monotonic(), 0.0
    while True:
        view = look(client, job_id)
        now = time.monotonic()
        if view.status is not Status.UNKNOWN:
            seen = now
        progress = read_progress(submission.run_dir)
        on_progress(progress)
        if view.status in (Status.SUCCEEDED, Status.FAILED):
            _keep_log(client, job_id, submission)
            return _outcome(view, submission)
        if not cluster.alive():
            raise ClusterLost(f"{submission.name}: the Ray head is gone")
        if view.status is Status.MISSING and _silent(progress, cluster.quiet_s):
            raise ClusterLost(f"{submission.name}: the cluster has no record of job {job_id} any more")
        if now - seen > cluster.lost_after_s:
            raise StateUnknown(
                f"{submission.name}: {view.message or 'no answer'} for {now - seen:.0f} s. The job may still run, so "
                "nothing was started again; run the same command later to attach to it"
            )
        published = published or (now if _published(submission) else 0.0)
        if stop.is_set() or (published and now - published > END_S):
            _stop(client, job_id)
            _keep_log(client, job_id, submission)
            if not stop.is_set():
                return _outcome(View(Status.SUCCEEDED), submission)
            raise Stopped(f"{submission.name}: stopped")
        stop.wait(cluster.poll_s)


def _connect(cluster: Cluster, stop: threading.Event) -> Any:
    cluster.ready()
    if stop.is_set():
        raise Stopped("stopped before a job was submitted")
    try:
        return cluster.client()
    except Exception as error:
        _refused(error)
        raise ClusterLost(f"the cluster cannot be reached: {_first_line(error)}") from error


def _submit_or_attach(cluster: Cluster, client: Any, submission: Submission) -> str:
    """Submit under the first free attempt number, unless an attempt is under way or has succeeded already."""
    entrypoint = cluster.entrypoint(submission.module, submission.config)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        job_id = f"{submission.job_id}-a{attempt}"
        try:
            client.submit_job(
                entrypoint=entrypoint,
                submission_id=job_id,
                runtime_env={"env_vars": dict(submission.environment)},
                entrypoint_num_cpus=0,  # the driver only waits; a core for it would be missing to the workers
                metadata={"digest": submission.digest},
            )
            return job_id
        except Exception as error:
            _refused(error)
            view = look(client, job_id)
            if view.status in (Status.UNKNOWN, Status.MISSING):
                raise ClusterLost(f"{submission.name}: could not submit: {_first_line(error)}") from error
            ours = view.entrypoint == entrypoint
            if ours and (view.status in (Status.WAITING, Status.RUNNING) or _published(submission)):
                return job_id
    raise StageFailed(
        f"{submission.name}: {MAX_ATTEMPTS} attempts have failed on this cluster; see {submission.run_dir}"
    )


def _outcome(view: View, submission: Submission) -> StageResult:
    result = read_result(submission.run_dir)
    if result is not None and result.digest == submission.digest:
        return result  # the files are the truth, also when the job fell over on its way out
    if view.status is Status.SUCCEEDED:
        other = f"one with digest {result.digest}" if result else "none"
        view = View(
            Status.FAILED,
            message=f"the job ended well, but its result is missing (wanted {submission.digest}, found {other})",
        )
    log = submission.run_dir / LOG
    lines = log.read_text(errors="replace").splitlines()[-25:] if log.is_file() else []
    message = f"{submission.name}: {view.message or view.status.value}\n" + "\n".join(f"  | {line}" for line in lines)
    if view.infrastructure:
        raise ClusterLost(message)
    raise StageFailed(f"{message}\n  (whole log: {log})")


def _published(submission: Submission) -> bool:
    result = read_result(submission.run_dir)
    return result is not None and result.digest == submission.digest


def _silent(progress: Progress | None, quiet_s: float) -> bool:
    """Whether a job without a record shows no sign of life: its driver may have outlived a restarted head."""
    return quiet_s == 0 or progress is None or time.time() - progress.updated > quiet_s


def _stop(client: Any, job_id: str, patience_s: float = 15) -> None:
    """Ask for a stop and wait for it; what does not end in time is left to the session's end."""
    try:
        client.stop_job(job_id)
    except Exception:
        return  # out of reach: nothing more can be done from here
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and look(client, job_id).status in (Status.WAITING, Status.RUNNING):
        time.sleep(0.2)


def _keep_log(client: Any, job_id: str, submission: Submission) -> None:
    try:
        text = client.get_job_logs(job_id)
    except Exception as error:
        text = f"(no log: {_first_line(error)})"
    with (submission.run_dir / LOG).open("a") as file:
        file.write(f"==== {job_id}\n{text}\n")


def _refused(error: Exception) -> None:
    """An answer that will not change by asking again."""
    if type(error).__name__ == "AuthenticationError" or "Unauthorized" in str(error) or "Forbidden" in str(error):
        raise ConfigError(
            f"the Ray cluster refuses us ({_first_line(error)}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
