"""Run a plan from the command line: what is done is not even started, and Ctrl-C ends everything in order."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import Any, NoReturn

from flows.display import Display
from flows.launch import Stopped
from flows.session import open_session
from flows.stages import Plan
from flows.summary import publish, read_summary


def run(plan: Plan, display: Display) -> dict[str, Any]:
    """Bring a plan to its end and return its summary.

    Looks at the files first: Prefect, Ray and MLflow are neither imported nor started when everything is done.

    Raises:
        Stopped: the user stopped it.
        GateRefused, StageFailed, ClusterLost, StateUnknown, ClusterError, Busy: see `session` and `launch`.
    """
    summary = read_summary(plan)
    if summary is not None:
        display.say(f"{plan.preset}: all {len(plan.stages)} stages are done")
        return summary
    missing = plan.missing()
    if missing:
        display.say(
            f"{plan.preset}: {len(missing)} of {len(plan.stages)} stages to do; everything is in {plan.preset_dir}"
        )
        stop = threading.Event()
        with stopped_by_signals(stop, display), display:
            _carry_out(plan, display, stop)
    return read_summary(plan) or publish(plan)


def leave(code: int) -> NoReturn:
    """End this process. Once Prefect is loaded, its exit handlers would wait for a server that is gone."""
    if "prefect" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _carry_out(plan: Plan, display: Display, stop: threading.Event) -> None:
    try:
        with open_session(plan, display, stop):
            if not stop.is_set():
                in_thread(_flow(plan))
    except Exception:
        if not stop.is_set():  # else the error comes from the stop
            raise
    if stop.is_set():
        raise Stopped(f"{plan.preset}: stopped; the same command goes on from here")


def _flow(plan: Plan) -> Callable[[], None]:
    def start() -> None:
        from flows.pipeline import close_stale_runs, pipeline  # imports Prefect

        if plan.config.prefect_url is None:
            close_stale_runs()
        pipeline(plan.preset)

    return start


def in_thread(function: Callable[[], None]) -> None:
    """Call a function in another thread and wait for it. Prefect sets signal handlers of its own in the main thread."""
    errors: list[BaseException] = []
    context = copy_context()

    def call() -> None:
        try:
            context.run(function)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call, name="pipeline", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
    if errors:
        raise errors[0]


@contextmanager
def stopped_by_signals(stop: threading.Event, display: Display) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM, SIGHUP) asks for a stop, the second one does not wait for it."""

    asked = 0.0

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if stop.is_set():
            if time.monotonic() - asked > 1:  # a signal may come twice: to the process and to its group
                raise KeyboardInterrupt
            return
        asked = time.monotonic()
        stop.set()
        display.say("stopping (once more: without waiting)")

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
