"""What the user sees of a run: a line per stage with progress and time to go, on a terminal or in a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from dreamline.result import StageResult
from flows.launch import Progress as Step

PLAIN_EVERY_S = 10.0
SHOWN_METRICS = ("scenes/generation", "scenes/editing")


class Display:
    """Shows stages as they go; safe to call from several threads."""

    def __init__(self, stages: int, stream: IO[str] | None = None) -> None:
        self.console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        self.stages = stages
        self.finished = 0
        self._lock = threading.RLock()  # a signal may speak while its thread does
        self._watches: dict[str, _Watch] = {}
        self._bars: Progress | None = None

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            columns = (TextColumn("{task.description:<12}"), BarColumn(24), TextColumn("{task.fields[text]}"))
            self._bars = Progress(*columns, console=self.console, transient=True, refresh_per_second=2)
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, text: str) -> None:
        """One line."""
        with self._lock:
            self.console.print(text, markup=False)

    def done_already(self, name: str, result: StageResult, older_code: bool) -> None:
        """A stage that has a result."""
        note = ", by older code" if older_code else ""
        self._count(f"{name}: done before ({duration(result.wall_s)}{note})")

    def watch(self, name: str) -> Callable[[Step | None], None]:
        """Begin a stage; the returned function takes its progress as it is read."""
        watch = _Watch()
        self._watches[name] = watch
        if self._bars is not None:
            watch.bar = self._bars.add_task(name, total=None, text="starting")
        else:
            self.say(f"{self._position()} {name}: started")

        def show(step: Step | None) -> None:
            text = watch.describe(step)
            if self._bars is not None and watch.bar is not None:
                done, total = (step.done, step.total) if step else (0, None)
                self._bars.update(watch.bar, completed=done, total=total, text=text)
            elif watch.due():
                self.say(f"{self._position()} {name}: {text}")

        return show

    def end(self, name: str, result: StageResult | None) -> None:
        """A stage has ended; without a result it failed or was stopped."""
        watch = self._watches.pop(name)
        if self._bars is not None and watch.bar is not None:
            self._bars.remove_task(watch.bar)
        if result is None:
            self.say(f"{self._position()} {name}: no result after {duration(watch.elapsed)}")
            return
        values = ", ".join(f"{key} {result.metrics[key]:.3f}" for key in headline(result.metrics))
        self._count(f"{name}: done in {duration(watch.elapsed)}{'  ' + values if values else ''}")

    def _count(self, text: str) -> None:
        with self._lock:
            self.finished += 1
        self.say(f"[{self.finished}/{self.stages}] {text}")

    def _position(self) -> str:
        return f"[{min(self.finished + 1, self.stages)}/{self.stages}]"


class _Watch:
    """Speed of one stage, from what it did since this run began to look."""

    def __init__(self) -> None:
        self.started = self.said = time.time()
        self.first: Step | None = None
        self.bar: TaskID | None = None

    @property
    def elapsed(self) -> float:
        return time.time() - self.started

    def due(self) -> bool:
        """Whether it is time for another plain line."""
        if time.time() - self.said < PLAIN_EVERY_S:
            return False
        self.said = time.time()
        return True

    def describe(self, step: Step | None) -> str:
        """Done, time to go and the newest loss, in a few words."""
        if step is None or step.updated < self.started:  # what an earlier attempt wrote says nothing about this one
            return f"starting, {duration(self.elapsed)}"
        if self.first is None or step.message != self.first.message or step.done < self.first.done:
            self.first = step
        parts = [f"{step.done}/{step.total} {step.unit}"]
        if self.first.done < step.done < step.total:
            per_unit = (step.updated - self.first.updated) / (step.done - self.first.done)
            left = per_unit * (step.total - step.done) - (time.time() - step.updated)
            parts.append(f"{duration(max(left, 0))} to go")
        else:
            parts.append(duration(self.elapsed))
        parts += [f"{key} {step.metrics[key]:.4g}" for key in headline(step.metrics)[:1]]
        return ", ".join([step.message, *parts] if step.message else parts)


def headline(metrics: Mapping[str, float]) -> list[str]:
    """Names of the few values worth a line: scores, else the last losses, else accuracies."""
    scores = [name for name in SHOWN_METRICS if name in metrics]
    if scores:
        return scores
    losses = [name for name in metrics if "loss" in name and not name.endswith("_first")]
    return (losses or [name for name in metrics if "accuracy" in name])[:2]


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
