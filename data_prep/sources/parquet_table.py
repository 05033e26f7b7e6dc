"""Tables in parquet files, with URLs or with the bytes of pictures in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from data_prep.sources.columns import BadRow, Row
from data_prep.sources.presets import Layout
from data_prep.sources.reader import MAX_SPANS, SPAN_ROWS, Span
from dreamline.storage import FileEntry, is_remote, open_read
from dreamline.storage_s3 import StorageError

BATCH = 16  # rows in memory; they may hold pictures
BUFFER = 2**20  # bytes read at a time of each column
SPLIT_BELOW = 256 * 2**20  # bytes of a row group; larger ones are read by one task, as its parts would be read over


@dataclass(frozen=True)
class ParquetTable:
    """Parquet files of one layout. Rows are read by row group, column chunks page by page."""

    layout: Layout

    def spans(self, file: FileEntry) -> list[Span]:
        """Cut a file by its footer alone: small row groups are joined, large ones of little content are cut."""
        try:
            with _open(file.path) as parquet:
                self.layout.check(file.path, parquet.schema_arrow.names)
                meta = parquet.metadata
                groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
                sizes = [(group.num_rows, self._bytes(group)) for group in groups]
        except StorageError:
            raise
        except damage():
            return [Span(f"{file.name}#0", None, file.path, version=file.version)]
        cuts, first, row = [0], 0, 0
        for rows, size in sizes:
            if size <= SPLIT_BELOW and rows >= 2 * SPAN_ROWS:
                step = max(SPAN_ROWS, -(-rows // MAX_SPANS))
                cuts += range(row, row + rows, step)
                first = row + rows
            row += rows
            if row - first >= SPAN_ROWS:
                cuts.append(row)
                first = row
        edges = sorted({*cuts, row})
        return [
            Span(f"{file.name}#{start}", stop - start, file.path, start, stop, start, version=file.version)
            for start, stop in itertools.pairwise(edges)
        ]

    def rows(self, span: Span) -> Iterator[Row | BadRow]:
        """The rows of a part. Damage within it makes each row that is lost a bad one."""
        done = 0
        try:
            with _open(span.file) as parquet:
                for row in self._slice(parquet, span):
                    yield row
                    done += 1
        except (StorageError, FileExistsError):
            raise
        except damage() as error:
            if span.num_rows is None:
                raise
            for _ in range(span.num_rows - done):
                yield BadRow("damaged_file", f"the file is damaged here: {_first_line(error)}")

    def _slice(self, parquet: Any, span: Span) -> Iterator[Row]:
        meta, begin = parquet.metadata, 0
        wanted = self.layout.names()
        columns = [name for name in parquet.schema_arrow.names if name in wanted]
        stop = meta.num_rows if span.stop is None else span.stop
        for number in range(meta.num_row_groups):
            end = begin + meta.row_group(number).num_rows
            if begin < stop and end > span.start:
                position = begin
                for batch in parquet.iter_batches(BATCH, row_groups=[number], columns=columns, use_threads=False):
                    low, high = max(span.start - position, 0), min(stop - position, len(batch))
                    if low < high:
                        yield from batch.slice(low, high - low).to_pylist()
                    position += len(batch)
                    if position >= stop:
                        break
            begin = end

    def _bytes(self, group: Any) -> int:
        """Compressed bytes of the columns that are read."""
        wanted = self.layout.names()
        chunks = (group.column(number) for number in range(group.num_columns))
        return sum(int(chunk.total_compressed_size) for chunk in chunks if chunk.path_in_schema.split(".")[0] in wanted)


def damage() -> tuple[type[Exception], ...]:
    """What pyarrow raises where a file is not sound parquet."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, UnicodeDecodeError)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


@contextmanager
def _open(path: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        source = stack.enter_context(open_read(path, BUFFER)) if is_remote(path) else path
        yield stack.enter_context(pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER))
