"""Run a plan from the command line: what is done is not even started, and Ctrl-C ends everything in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import Any

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
        with _stopped_by_signals(stop, display), display, open_session(plan, display, stop):
            _in_thread(_flow(plan))
            if stop.is_set():
                raise Stopped("stopped")
    return read_summary(plan) or publish(plan)


def _flow(plan: Plan) -> Callable[[], None]:
    def start() -> None:
        from flows.pipeline import pipeline  # imports Prefect

        pipeline(plan.preset)

    return start


def _in_thread(function: Callable[[], None]) -> None:
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
def _stopped_by_signals(stop: threading.Event, display: Display) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM, SIGHUP) asks for a stop, the second one does not wait for it."""

    def ask(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        display.say("stopping; the same command goes on from here later (once more: do not wait)")

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
