"""Lists as text files, plain or gzipped, in parts that can be read apart."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from data_prep.sources.columns import BadRow, Row
from data_prep.sources.presets import Layout
from data_prep.sources.reader import MAX_SPANS, SPAN_ROWS, Span
from data_prep.sources.text_formats import JsonArray, JsonLines, Separated, Stream, TextFormat, Urls
from dreamline.config import ConfigError
from dreamline.storage import FileEntry, open_read

DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)
PEEK = 20  # rows that are looked at to find the columns of a list without a header


@dataclass(frozen=True)
class TextTable:
    """One kind of text list."""

    format: TextFormat
    layout: Layout
    zipped: bool

    def spans(self, file: FileEntry) -> list[Span]:
        """Cut a file in one pass; a gzipped one can only be read from its start, so it gets fewer parts."""
        starts: list[tuple[int, int]] = []  # first row and the byte where it begins
        rows = end = 0
        whole = True
        names, begin = self._header(file)
        try:
            with _open(file.path, self.zipped) as stream:
                stream.seek(begin)
                for _, stop in self.format.split(stream):
                    if rows % SPAN_ROWS == 0:
                        starts.append((rows, begin + end))
                    rows, end = rows + 1, stop
        except DAMAGE:
            whole = False  # whoever reads the last part comes to the same place
        if not starts:
            if whole:
                return []  # a header and no rows
            starts.append((0, begin))
        apart = self.format.by_bytes and not self.zipped
        step = 1 if apart else max(1, -(-len(starts) // MAX_SPANS))
        chosen = starts[::step]
        ends = [*chosen[1:], (rows, None)]
        return [
            Span(
                name=f"{file.name}#{row}",
                num_rows=None if next_byte is None and not whole else next_row - row,
                file=file.path,
                start=byte if apart else row,
                stop=(next_byte if apart else next_row) if next_byte is not None else None,
                first_row=row,
                columns=names,
                version=file.version,
            )
            for (row, byte), (next_row, next_byte) in zip(chosen, ends, strict=True)
        ]

    def rows(self, span: Span) -> Iterator[Row | BadRow]:
        """The rows of a part."""
        apart = self.format.by_bytes and not self.zipped
        with _open(span.file, self.zipped) as stream:
            if apart:
                stream.seek(span.start)
                size = None if span.stop is None else span.stop - span.start
                for raw, end in self.format.split(stream):
                    yield self.format.parse(raw, span.columns)
                    if size is not None and end >= size:
                        return
            else:
                records = self.format.split(stream)
                if self._names_in_file:
                    next(records, None)
                for raw, _ in itertools.islice(records, span.start, span.stop):
                    yield self.format.parse(raw, span.columns)

    @property
    def _names_in_file(self) -> bool:
        return self.format.has_header and self.layout.header is None

    def _header(self, file: FileEntry) -> tuple[tuple[str, ...], int]:
        """Names of the columns, and the byte where the rows begin. ConfigError: a column is missing."""
        if self.format.has_header and self.layout.header is not None:
            self.layout.check(f"{file.path} (header: in the configuration)", self.layout.header)
            return self.layout.header, 0
        try:
            with _open(file.path, self.zipped) as stream:
                first = list(itertools.islice(self.format.split(stream), 1 if self.format.has_header else PEEK))
        except DAMAGE:
            return (), 0
        if not self.format.has_header:
            parsed = [self.format.parse(raw, ()) for raw, _ in first]
            found = {name for row in parsed if not isinstance(row, BadRow) for name in row}
            if found:
                self.layout.check(f"{file.path} (first {len(parsed)} rows)", found)
            return (), 0
        raw, end = first[0] if first else ([], 0)
        names = () if isinstance(raw, BadRow) else tuple(name.strip() for name in raw)
        if not all(name.isprintable() for name in names):
            raise ConfigError(f"{file.path}: its first line is not UTF-8 text; save the file as UTF-8")
        self.layout.check(f"{file.path} (first line)", names)
        return names, end


@contextmanager
def _open(path: str, zipped: bool) -> Iterator[Stream]:
    with open_read(path) as file:
        if not zipped:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as plain:
            yield plain


def text_table(name: str, layout: Layout) -> TextTable | None:
    """The table of a file name, or None if it is none."""
    plain = name.lower().removesuffix(".gz")
    quotes = layout.quotes
    formats: dict[str, TextFormat] = {
        "csv": Separated(",", quotes is not False),
        "tsv": Separated("\t", quotes is True),
        "jsonl": JsonLines(),
        "ndjson": JsonLines(),
        "json": JsonArray(),
        "txt": Urls(),
    }
    found = formats.get(plain.rpartition(".")[2])
    return None if found is None else TextTable(found, layout, name.lower().endswith(".gz"))
