"""The ledger of failures: what was not fetched and why, so that it can be counted and tried again."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.fetch.outcome import FetchFailure, Reason
from dreamline.storage import write_bytes

Only: TypeAlias = Literal["all", "transient", "permanent"]

SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("url", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("transient", pa.bool_()),
        ("status", pa.int16()),
        ("retry_after", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """One failure and the row that it belongs to."""

    row: str  # as `Record.row`
    failure: FetchFailure


class FailureLedger:
    """Failures by row and URL; the latest failure of one URL of a row counts."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}  # by row and URL
        for entry in entries:
            self.add(entry.row, entry.failure)

    def __len__(self) -> int:
        return sum(len(of_row) for of_row in self._entries.values())

    def __iter__(self) -> Iterator[Entry]:
        """Entries by row and URL, so that equal ledgers give equal files."""
        for _, of_row in sorted(self._entries.items()):
            yield from (entry for _, entry in sorted(of_row.items()))

    def add(self, row: str, failure: FetchFailure) -> None:
        """Note a failure, in place of an earlier one."""
        self._entries.setdefault(row, {})[failure.url] = Entry(row, failure)

    def resolve(self, row: str) -> None:
        """Forget a row that was fetched after all."""
        self._entries.pop(row, None)

    def counts(self) -> dict[Reason, int]:
        """Failures by reason, most first."""
        found = Counter(entry.failure.reason for entry in self)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def select(self, only: Only = "all") -> list[Entry]:
        """Entries of one class."""
        return [entry for entry in self if only == "all" or entry.failure.transient == (only == "transient")]

    def to_bytes(self) -> bytes:
        """As a parquet file."""
        rows = [
            {
                "row": entry.row,
                "url": _plain(entry.failure.url),
                "reason": entry.failure.reason,
                "detail": _plain(entry.failure.detail),
                "transient": entry.failure.transient,
                "status": entry.failure.status,
                "retry_after": entry.failure.retry_after,
            }
            for entry in self
        ]
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, compression="zstd")
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> FailureLedger:
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            table = pq.read_table(io.BytesIO(content))
        except pa.ArrowException as error:
            raise ValueError(f"not a ledger of failures: {error}") from None
        if not table.schema.equals(SCHEMA):
            raise ValueError(f"not a ledger of failures: its columns are {table.schema.names}, not {SCHEMA.names}")
        return cls(Entry(row.pop("row"), FetchFailure(**row)) for row in table.to_pylist())

    def write(self, path: str | Path) -> None:
        """Write a parquet file, atomically."""
        write_bytes(path, self.to_bytes())

    @classmethod
    def read(cls, path: str | Path) -> FailureLedger:
        """Read a parquet file.

        Raises:
            ValueError: it is no ledger.
        """
        try:
            return cls.from_bytes(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _plain(text: str) -> str:
    """Text that UTF-8 can hold; lone surrogates of damaged lists become question marks."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
