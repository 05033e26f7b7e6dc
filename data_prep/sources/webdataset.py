"""WebDataset archives: members with one key are one sample, of a picture with its caption or of an edit."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from data_prep.record import Problem, Record
from data_prep.sources.columns import BadRow, Row, to_record
from data_prep.sources.presets import Layout
from data_prep.sources.reader import SPAN_ROWS, Span
from data_prep.sources.tables import plan_files, read_rows
from data_prep.sources.tar_file import MAX_MEMBER, Member, members
from data_prep.sources.tar_header import TarDamage
from data_prep.sources.text_formats import Stream
from data_prep.sources.text_table import DAMAGE, PEEK
from dreamline.storage import FileEntry, is_remote, open_read

_COMMON = ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff")
PICTURES = frozenset((*_COMMON, "avif", "heic", "heif", "jxl", "jp2", "ppm", "pgm"))
TEXTS = frozenset(("txt", "text", "caption"))
CUT_ABOVE = 2**30  # bytes; smaller archives, and those on S3, are read by one task


@dataclass(frozen=True)
class TarTable:
    """Archives of samples. A cell is called by what stands before its extension: `<key>.source.png` is `source`.

    `<key>.jpg` is `image`, `<key>.txt` is `text`, `<key>.json` is `json`, with its values as `json.<name>`.
    """

    layout: Layout

    def spans(self, file: FileEntry) -> list[Span]:
        """One part, or, of a large local archive, one per thousand samples by a pass over its headers."""
        starts = [(0, 0)]  # first row, byte
        rows, whole, key = 0, False, None
        if file.size > CUT_ABOVE and not is_remote(file.path) and not _zipped(file.path):
            try:
                with _open(file.path) as stream:
                    for member in members(stream, lambda _: False):
                        if _is_part(member.name) and _key(member.name) != key:
                            key = _key(member.name)
                            if rows and rows % SPAN_ROWS == 0:
                                starts.append((rows, member.offset))
                            rows += 1
                whole = True
            except TarDamage:
                pass  # whoever reads the last part comes to the same place
        ends: list[tuple[int | None, int | None]] = [*starts[1:], (rows if whole else None, None)]
        return [
            Span(
                name=f"{file.name}#{row}",
                num_rows=None if next_row is None else next_row - row,
                file=file.path,
                start=byte,
                stop=next_byte,
                first_row=row,
                version=file.version,
            )
            for (row, byte), (next_row, next_byte) in zip(starts, ends, strict=True)
        ]

    def rows(self, span: Span) -> Iterator[Row | BadRow]:
        """The samples of a part; where the archive breaks off, one bad row says so."""
        group: list[Member] = []
        try:
            with _open(span.file) as stream:
                stream.seek(span.start)
                size = None if span.stop is None else span.stop - span.start
                for member in members(stream, _is_part):
                    if not _is_part(member.name):
                        continue
                    if group and _key(member.name) != _key(group[0].name):
                        yield _cells(group)
                        group = []
                    if size is not None and member.offset >= size:
                        return
                    group.append(member)
                if group:
                    yield _cells(group)
        except (TarDamage, *DAMAGE) as error:
            lost = f"sample {_key(group[0].name)!r} and what follows" if group else "what follows"
            yield BadRow("damaged_file", f"{lost} cannot be read: {error}")


@dataclass(frozen=True)
class WebDatasetReader:
    """See `Reader`."""

    location: str
    layout: Layout

    def spans(self) -> list[Span]:
        """See `Reader`. The columns are looked for in the first samples of the first archive."""
        spans = plan_files(self.location, self._table, "a tar file")
        rows = itertools.islice(read_rows(spans[0], TarTable(self.layout)), PEEK)
        found = {name for row in rows if not isinstance(row, BadRow) for name in _names(row)}
        if found:
            self.layout.check(f"{spans[0].file} (first samples)", found)
        return spans

    def read(self, span: Span) -> Iterator[Record | Problem]:
        """See `Reader`."""
        name = span.name.rpartition("#")[0]
        folder = span.file.rpartition("/")[0] or "."
        for number, cells in enumerate(read_rows(span, TarTable(self.layout)), span.first_row):
            yield to_record(f"{name}#{number}", cells, self.layout, folder)

    def _table(self, name: str) -> TarTable | None:
        return TarTable(self.layout) if name.lower().endswith((".tar", ".tar.gz", ".tgz")) else None


def _cells(group: list[Member]) -> Row | BadRow:
    cells: dict[str, Any] = {"key": _key(group[0].name)}
    for member in group:
        stem, _, extension = _parts(member.name)[1].lower().rpartition(".")
        if member.content is None:
            return BadRow("too_large", f"{member.name}: {member.size} bytes, at most {MAX_MEMBER} are read")
        name = stem or ("image" if extension in PICTURES else "json" if extension == "json" else "text")
        if name in cells:
            return BadRow("several_members", f"{member.name}: the sample has two members called {name!r}")
        cells[name] = member.content
        if extension == "json":
            try:
                cells[name] = json.loads(member.content)
            except (ValueError, RecursionError) as error:
                return BadRow("bad_row", f"{member.name}: not JSON: {error}")
    return cells


def _names(cells: Row) -> set[str]:
    """Names of cells, and paths into those that hold JSON."""
    inner = {f"{name}.{key}" for name, value in cells.items() if isinstance(value, dict) for key in value}
    return {name for name, value in cells.items() if not isinstance(value, dict)} | inner


def _parts(name: str) -> tuple[str, str]:
    """Key and extension of a member: its name up to the first dot behind the last slash, and what follows."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension


def _key(name: str) -> str:
    return _parts(name)[0]


def _is_part(name: str) -> bool:
    """Whether a member can be of use; hidden files, such as those that macOS adds, cannot."""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and base.lower().rpartition(".")[2] in {*PICTURES, *TEXTS, "json"}


def _zipped(path: str) -> bool:
    return path.lower().endswith(("gz", "tgz"))


@contextmanager
def _open(path: str) -> Iterator[Stream]:
    with open_read(path) as file:
        if not _zipped(path):
            yield file
            return
        with gzip.GzipFile(fileobj=file) as plain:
            yield plain
