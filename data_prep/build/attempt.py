"""Attempts at a span, and the search for rows that end the process they are worked on in.

An attempt leaves a mark when it starts. One that finds the mark of an attempt that came to no end works in a process
of its own; if that dies, too, the rows are taken through it a few at a time, until it is known which of them end a
process alone. These are rejected, and the rest is staged as ever. A process that was killed from outside is replaced by
one that comes to the same result.
"""

from __future__ import annotations

from dataclasses import dataclass

from data_prep.build.alone import Alone, Died, Note
from data_prep.build.guilty import NOBODY, Guilty
from data_prep.build.process import Processing, SpanTask
from data_prep.build.store import open_store
from dreamline.config import ConfigError

ROUNDS = 3  # searches in a span, as another row may turn out to be guilty once the first are out of the way
CHUNK = 16  # rows fetched at a time while searching
DIED = "died"  # name of a mark instead of a span's: some attempt came to no end in the process of the build
MOST = 100  # guilty rows one after another; more cannot be the fault of rows


@dataclass(frozen=True)
class Attempt:
    """Stages a span, whatever became of earlier attempts."""

    work: Processing
    wary: bool = False  # use a process of its own from the start

    def __call__(self, task: SpanTask) -> int:
        """Stage one span.

        Returns:
            Number of rows.

        Raises:
            ConfigError: its process dies though none of its rows ends one alone.
        """
        store = open_store(self.work.config.output)
        mark = mark_name(self.work.prefix, task.name)
        if store.put_first(mark, b"") and not self.wary:
            try:
                return self.work(task)
            except BaseException:  # also a cancelled task: it ends, and says why
                store.delete(mark)
                raise
        with Alone() as process:
            return _carefully(process, self.work, task)


def mark_name(prefix: str, span: str) -> str:
    """Name of the mark that an attempt at a span leaves."""
    return f"{prefix}started/{span}"


def _carefully(process: Alone, work: Processing, task: SpanTask) -> int:
    guilty = NOBODY
    for _ in range(ROUNDS):
        try:
            return process.run(_stage, work, task, guilty)
        except Died as died:
            how = died.how
            guilty = _search(process, work, task, guilty)
    raise ConfigError(
        f"span {task.name} ({task.span}): its process was ended by {how} again and again, though no row of it ends one"
        " alone; give it more memory, or run fewer workers at a time"
    )


def _search(process: Alone, work: Processing, task: SpanTask, guilty: Guilty) -> Guilty:
    """Those known already, and the rows that end a process twice: in a pass over all of them, and alone."""
    first, last, in_a_row = 0, -1, 0
    while (died := _examine(process, work, task, guilty, first, None)) is not None:
        if died.place is None:
            raise ConfigError(f"span {task.name}: its process was ended by {died.how} before it came to a row")
        low, first, _ = died.place
        for row in range(low, first):
            again = _examine(process, work, task, guilty, row, row + 1)
            if again is None or again.place is None or again.place[0] != row:
                continue
            guilty = guilty.add(row, again.how, reading=bool(again.place[2]))
            last, in_a_row = row, in_a_row + 1 if row == last + 1 else 1
            if in_a_row > MOST:
                raise ConfigError(
                    f"span {task.name} ({task.span}): {MOST} rows one after another end their process ({again.how});"
                    " that is no fault of theirs: check filters.scorers and the memory, or leave the source out"
                )
    return guilty


def _examine(
    process: Alone, work: Processing, task: SpanTask, guilty: Guilty, first: int, stop: int | None
) -> Died | None:
    try:
        process.run(_go_through, work, task, guilty, first, stop)
    except Died as died:
        return died
    return None


def _stage(_: Note, work: Processing, task: SpanTask, guilty: Guilty) -> int:
    return work(task, guilty)


def _go_through(note: Note, work: Processing, task: SpanTask, guilty: Guilty, first: int, stop: int | None) -> None:
    work.examine(task, guilty, range(first, stop if stop is not None else 2**62), CHUNK, note)
