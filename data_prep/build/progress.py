"""How far a build is, said every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY_S = 5.0


@dataclass(frozen=True)
class Step:
    """What is said: a sentence, and how much of a phase is done where that is known."""

    text: str
    done: int = 0
    total: int = 0
    unit: str = ""


Say = Callable[[Step], None]


def silent(_: Step) -> None:
    """Say nothing."""


class Progress:
    """Called with the number of finished tasks and the rows of the one just in."""

    def __init__(self, unit: str, total: int, done: int, say: Say) -> None:
        self.unit, self.total, self.before, self.say = unit, total, done, say
        self.rows = 0
        self.started = self.said = time.monotonic()
        if done:
            say(Step(f"{unit}: {done} of {total} are there from an earlier attempt", done, total, unit))

    def __call__(self, finished: int, rows: int) -> None:
        """Count a task; say where we are if it is time to, or the last one."""
        self.rows += rows
        now, done = time.monotonic(), self.before + finished
        left = self.total - done
        if left and now - self.said < EVERY_S:
            return
        self.said, elapsed = now, max(now - self.started, 1e-9)
        rest = f"{duration(elapsed / finished * left)} left" if left else f"took {duration(elapsed)}"
        text = f"{self.unit}: {done} of {self.total}, {self.rows} rows, {self.rows / elapsed:.3g} rows/s, {rest}"
        self.say(Step(text, done, self.total, self.unit))


def duration(seconds: float) -> str:
    """Two units at most."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute} min"
    return f"{minute} min {second} s" if minute else f"{second} s"
