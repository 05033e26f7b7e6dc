"""Sources of kind `url_list` and `parquet`: lists of rows in files, whatever their format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from data_prep.record import Problem, Record
from data_prep.sources.columns import BadRow, Row, to_record
from data_prep.sources.parquet_table import ParquetTable, damage
from data_prep.sources.presets import Layout
from data_prep.sources.reader import Span
from data_prep.sources.text_table import DAMAGE, text_table
from dreamline.config import ConfigError
from dreamline.storage import FileEntry, is_remote, list_files, stat_file
from dreamline.storage_s3 import StorageError

THREADS = 16  # footers and lists read at a time from S3


class Table(Protocol):
    """A format of lists."""

    def spans(self, file: FileEntry) -> list[Span]:
        """Cut a file."""
        ...

    def rows(self, span: Span) -> Iterator[Row | BadRow]:
        """The rows of a part."""
        ...


@dataclass(frozen=True)
class TableReader:
    """See `Reader`. Pictures are URLs, bytes in the table, or paths relative to the file (or `pictures`)."""

    location: str
    layout: Layout
    only_parquet: bool = False

    def spans(self) -> list[Span]:
        """See `Reader`."""
        return plan_files(self.location, self.table, "a parquet file" if self.only_parquet else "a list")

    def read(self, span: Span) -> Iterator[Record | Problem]:
        """See `Reader`."""
        table = self.table(span.file)
        if table is None:
            raise ConfigError(f"{span.file}: is no list; spans come from spans()")
        name = span.name.rpartition("#")[0]
        folder = span.file.rpartition("/")[0] or "."
        for number, cells in enumerate(read_rows(span, table), span.first_row):
            yield to_record(f"{name}#{number}", cells, self.layout, folder)

    def table(self, name: str) -> Table | None:
        """The format of a file, by its name."""
        if name.lower().endswith((".parquet", ".parq")):
            return ParquetTable(self.layout)
        return None if self.only_parquet else text_table(name, self.layout)


def listed(location: str) -> list[FileEntry]:
    """All files of a location. ConfigError: the bucket is not there."""
    try:
        return list_files(location)
    except FileNotFoundError as error:
        raise ConfigError(f"{error}; set path to what is there") from None


def plan_files(location: str, table_of: Callable[[str], Table | None], what: str) -> list[Span]:
    """The spans of all files of a location that have a table.

    Raises:
        ConfigError: there is none, or one lacks a column.
    """
    there = listed(location)
    files = [entry for entry in there if table_of(entry.name) is not None]
    if not files:
        seen = ", ".join(entry.name for entry in there[:5]) or "no files at all"
        raise ConfigError(f"{location}: not {what}, and none below it (there are: {seen}); set path, or another kind")
    if not is_remote(location):
        return [span for file in files for span in plan_file(file, table_of(file.name))]
    with ThreadPoolExecutor(THREADS) as pool:
        planned = pool.map(lambda file: plan_file(file, table_of(file.name)), files)
        return [span for spans in planned for span in spans]


def plan_file(file: FileEntry, table: Table | None) -> list[Span]:
    """The spans of one file; of one without content a single one, whose row is a problem."""
    if table is None or not file.size:
        return [Span(f"{file.name}#0", 1, file.path, version=file.version)]
    return table.spans(file)


def read_rows(span: Span, table: Table) -> Iterator[Row | BadRow]:
    """The rows of a part; where a file breaks off, one bad row says so.

    Raises:
        ConfigError: the file has changed since it was planned.
    """
    try:
        found = stat_file(span.file)
    except FileNotFoundError:
        found = None
    if found is None or found.version != span.version:
        raise ConfigError(f"{span.file}: has changed since this build was planned; start it again")
    if not found.size:
        yield BadRow("empty_file", "the file has no content")
        return
    number = span.first_row
    try:
        for row in table.rows(span):
            yield row
            number += 1
    except StorageError:
        raise  # passing, and no fault of the file
    except FileExistsError:
        raise ConfigError(f"{span.file}: has changed while it was read; start the build again") from None
    except Exception as error:
        if not isinstance(error, (*DAMAGE, *damage())):
            raise
        yield BadRow("damaged_file", f"cannot be read from row {number} on: {type(error).__name__}: {error}")
