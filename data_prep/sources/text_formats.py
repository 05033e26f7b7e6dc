"""Lists as text: csv, tsv, jsonl, a JSON array, one URL per line. Each is cut into rows and a row into cells."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from data_prep.sources.columns import BadRow, Row

MAX_ROW = 16 * 2**20  # bytes of one line or object; a longer one is damage
_BOM = b"\xef\xbb\xbf"
_BLOCK = 2**16  # characters
_GAP = re.compile(r"[\s,\[]*")  # between the objects of an array

Stream = io.BufferedReader | gzip.GzipFile


class TextFormat(Protocol):
    """How a kind of text is cut."""

    @property
    def has_header(self) -> bool:
        """Whether the first row holds the names of the columns."""
        ...

    @property
    def by_bytes(self) -> bool:
        """Whether reading may begin at the end of any row, and not only at the start of the file."""
        ...

    def split(self, stream: Stream) -> Iterator[tuple[Any, int]]:
        """Rows, not yet parsed, with the bytes read from where the stream stood to the end of the row."""
        ...

    def parse(self, raw: Any, names: tuple[str, ...]) -> Row | BadRow:
        """The cells of a row."""
        ...


def _lines(stream: Stream) -> Iterator[tuple[bytes, int]]:
    """Lines with the bytes read so far; of an overlong one the beginning, so that it cannot pass for a row."""
    position = 0
    while line := stream.readline(MAX_ROW):
        position += len(line)
        whole = line.endswith(b"\n") or len(line) < MAX_ROW
        while not whole:
            rest = stream.readline(MAX_ROW)
            position += len(rest)
            whole = rest.endswith(b"\n") or len(rest) < MAX_ROW
        if line.startswith(_BOM) and position == len(line):
            line = line[len(_BOM) :]
        yield line, position


@dataclass(frozen=True)
class Separated:
    """csv and tsv; a cell in quotes may hold line breaks."""

    delimiter: str
    quotes: bool
    has_header: bool = True
    by_bytes: bool = True

    def split(self, stream: Stream) -> Iterator[tuple[list[str] | BadRow, int]]:
        """See `TextFormat`."""
        position = 0

        def texts() -> Iterator[str]:
            nonlocal position
            for line, end in _lines(stream):
                position = end
                yield line.decode("utf-8", "surrogateescape")

        source = texts()
        reader = self._reader(source)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:  # a quote that is never closed, for one; go on behind it
                yield BadRow("bad_row", f"not a row of csv: {error}"), position
                reader = self._reader(source)
                continue
            if cells:
                yield cells, position

    def _reader(self, lines: Iterator[str]) -> Iterator[list[str]]:
        if self.quotes:
            return csv.reader(lines, delimiter=self.delimiter)
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)

    def parse(self, raw: list[str] | BadRow, names: tuple[str, ...]) -> Row | BadRow:
        """See `TextFormat`."""
        if isinstance(raw, BadRow):
            return raw
        if len(raw) != len(names):
            return BadRow("bad_row", f"{len(raw)} cells, but {len(names)} columns ({', '.join(names[:8])})")
        return dict(zip(names, raw, strict=True))


@dataclass(frozen=True)
class JsonLines:
    """One JSON object per line; blank lines are no rows."""

    has_header: bool = False
    by_bytes: bool = True

    def split(self, stream: Stream) -> Iterator[tuple[bytes, int]]:
        """See `TextFormat`."""
        return ((line, end) for line, end in _lines(stream) if line.strip())

    def parse(self, raw: bytes, names: tuple[str, ...]) -> Row | BadRow:
        """See `TextFormat`."""
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError) as error:
            return BadRow("bad_row", f"not JSON: {error}")
        return value if isinstance(value, dict) else BadRow("bad_row", f"no JSON object, but {type(value).__name__}")


@dataclass(frozen=True)
class JsonArray:
    """One JSON array of objects, read piece by piece."""

    has_header: bool = False
    by_bytes: bool = False

    def split(self, stream: Stream) -> Iterator[tuple[Any, int]]:
        """See `TextFormat`. What follows a place that is not JSON cannot be told apart and is one bad row."""
        text = io.TextIOWrapper(cast(io.BufferedReader, stream), "utf-8-sig", errors="surrogateescape")
        decoder, buffer, at = json.JSONDecoder(), "", 0
        while True:
            at = gap.end() if (gap := _GAP.match(buffer, at)) else at
            try:
                value, end = decoder.raw_decode(buffer, at)
            except (ValueError, RecursionError) as error:
                block = text.read(max(_BLOCK, len(buffer) - at)) if len(buffer) - at < MAX_ROW else ""
                if not block:
                    if buffer[at:].rstrip() != "]":
                        yield BadRow("bad_row", f"not a JSON array up to its end: {error}"), 0
                    return
                buffer, at = buffer[at:] + block, 0
                continue
            at = end
            yield value, 0

    def parse(self, raw: Any, names: tuple[str, ...]) -> Row | BadRow:
        """See `TextFormat`."""
        if isinstance(raw, dict | BadRow):
            return raw
        return BadRow("bad_row", f"no JSON object, but {type(raw).__name__}")


@dataclass(frozen=True)
class Urls:
    """One URL per line, no captions."""

    has_header: bool = False
    by_bytes: bool = True

    def split(self, stream: Stream) -> Iterator[tuple[bytes, int]]:
        """See `TextFormat`."""
        return ((line, end) for line, end in _lines(stream) if line.strip())

    def parse(self, raw: bytes, names: tuple[str, ...]) -> Row | BadRow:
        """See `TextFormat`."""
        return {"url": raw.decode("utf-8", "surrogateescape").strip()}
