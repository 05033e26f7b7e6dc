"""Rows that end the process they are worked on in, and what stands in their place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from data_prep.build.augment import Derivation
from data_prep.record import Problem, Record

Row = TypeVar("Row", Record | Problem, Derivation | Problem)

CRASHED = "crashed"  # the reason of such rows


@dataclass(frozen=True)
class Guilty:
    """Rows of a span by number, with what ended the process; and from where on reading the source ends it."""

    rows: Mapping[int, str] = field(default_factory=dict)
    unread: tuple[int, str] | None = None

    def add(self, row: int, how: str, reading: bool) -> Guilty:
        """One more, while it was read or afterwards."""
        if reading:
            return Guilty(self.rows, (row, f"reading the source from here on ends the process ({how})"))
        return Guilty({**self.rows, row: f"working on it ends the process ({how})"}, self.unread)

    def set_aside(self, rows: Iterable[Row], first: int, span: str, total: int | None) -> Iterator[Row | Problem]:
        """The rows with problems in place of guilty ones.

        Args:
            rows: of a span, beginning with number `first`.
            first: see there.
            span: its name, for rows that cannot be read.
            total: rows of the span, if that is known: then each that cannot be read is a problem, else all together.
        """
        stream, number = iter(rows), first
        while self.unread is None or number < self.unread[0]:
            row = next(stream, None)
            if row is None:
                return
            yield Problem(row.row, CRASHED, self.rows[number]) if number in self.rows else row
            number += 1
        for lost in range(number, max(number + 1, total or 0)):
            yield Problem(f"{span}+{lost}", CRASHED, self.unread[1])


NOBODY = Guilty()
