"""How far a phase is, said every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 5.0


class Progress:
    """Called with the number of finished tasks and the rows of the one just in."""

    def __init__(self, unit: str, total: int, done: int, say: Callable[[str], None]) -> None:
        self.unit, self.total, self.before, self.say = unit, total, done, say
        self.rows = 0
        self.started = self.said = time.monotonic()
        if done:
            say(f"{unit}: {done} of {total} are there from an earlier attempt")

    def __call__(self, finished: int, rows: int) -> None:
        """Count a task; say where we are if it is time to, or the last one."""
        self.rows += rows
        now, left = time.monotonic(), self.total - self.before - finished
        if left and now - self.said < EVERY_S:
            return
        self.said, elapsed = now, max(now - self.started, 1e-9)
        rest = f", {duration(elapsed / finished * left)} left" if left else f" in {duration(elapsed)}"
        self.say(
            f"{self.unit}: {self.before + finished} of {self.total}, {self.rows} rows, "
            f"{self.rows / elapsed:.3g} rows/s{rest}"
        )


def duration(seconds: float) -> str:
    """Two units at most."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute} min"
    return f"{minute} min {second} s" if minute else f"{second} s"
