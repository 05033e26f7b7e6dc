"""A folder of pictures, with captions in metadata files, in sidecar files or in the names."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.record import Problem, Record
from data_prep.sources.columns import BadRow, Row, find, printable, to_record
from data_prep.sources.config import Caption
from data_prep.sources.presets import Layout
from data_prep.sources.reader import SPAN_ROWS, Span
from data_prep.sources.tables import TableReader, listed, plan_file, read_rows
from data_prep.sources.webdataset import PICTURES
from dreamline.config import ConfigError
from dreamline.storage import FileEntry, join, read_bytes

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SIDECARS = ("txt", "caption", "json")


@dataclass(frozen=True)
class FolderReader:
    """See `Reader`. Pictures are found at any depth; other files are captions or nothing."""

    location: str
    layout: Layout
    caption: Caption | None

    def spans(self) -> list[Span]:
        """See `Reader`. With metadata, pictures that no row names come last, each as a problem."""
        entries = listed(self.location)
        names = [entry.name for entry in entries]
        pictures = [name for name in names if _extension(name) in PICTURES]
        metadata = [entry for entry in entries if entry.name.rpartition("/")[2] in METADATA]
        if not pictures and not metadata:
            seen = ", ".join(names[:5]) or "no files at all"
            raise ConfigError(f"{self.location}: no pictures there (there are: {seen}); set path to a folder of them")
        if self.caption == "metadata" and not metadata:
            raise ConfigError(f"{self.location}: caption: metadata, but there is no {' or '.join(METADATA)} below it")
        if metadata and self.caption in (None, "metadata"):
            spans = [span for entry in metadata for span in plan_file(entry, self._tables.table(entry.name))]
            named = set() if self.layout.pictures else self._named(spans)
            return spans + _cut([name for name in pictures if name not in named], set(), entries, "orphans")
        if self.caption in ("filename", "none"):
            return _cut(pictures, set(), entries, self.caption)
        return _cut(pictures, {name for name in names if _extension(name) in SIDECARS}, entries, "sidecar")

    def read(self, span: Span) -> Iterator[Record | Problem]:
        """See `Reader`."""
        if not span.files:
            yield from self._tables.read(span)
            return
        mode, there = span.name.partition("#")[0], set(span.files)
        for name in span.files:
            if _extension(name) not in PICTURES:
                continue
            if mode == "orphans":
                yield Problem(printable(name), "no_metadata", "no row of the metadata names this picture")
                continue
            folder, _, base = name.rpartition("/")
            cells: Row | BadRow = {}
            if mode == "filename":
                cells = {"caption": base.rpartition(".")[0].replace("_", " ")}
            elif mode == "sidecar":
                cells = _sidecars(span.file, name, there)
            if not isinstance(cells, BadRow):
                cells = {**cells, self.layout.columns.image[0]: base}
            yield to_record(name, cells, self.layout, join(span.file, folder) if folder else span.file)

    @property
    def _tables(self) -> TableReader:
        return TableReader(self.location, self.layout)

    def _named(self, spans: Sequence[Span]) -> set[str]:
        """The pictures that rows of the metadata name, relative to the root."""
        columns, found = self.layout.columns, set[str]()
        for span in spans:
            table = self._tables.table(span.file)
            folder = span.name.rpartition("#")[0].rpartition("/")[0]
            for cells in read_rows(span, table) if table is not None else ():
                for names in (columns.image, columns.source, columns.mask):
                    value = None if isinstance(cells, BadRow) else find(cells, names)
                    for item in value if isinstance(value, list) else [value]:
                        if isinstance(item, str):
                            found.add(posixpath.normpath(posixpath.join(folder, item.strip())))
        return found


def _cut(pictures: Sequence[str], sidecars: set[str], entries: Sequence[FileEntry], mode: str) -> list[Span]:
    """Spans of some pictures, each followed by its sidecars; `entries` are all files of the folder."""
    versions = {entry.name: entry.version for entry in entries}
    root = entries[0].path[: -len(entries[0].name)]
    spans = []
    for start in range(0, len(pictures), SPAN_ROWS):
        chosen = pictures[start : start + SPAN_ROWS]
        beside = (f"{name.rpartition('.')[0]}.{extension}" for name in chosen for extension in SIDECARS)
        files = (*chosen, *sorted({name for name in beside if name in sidecars}))
        text = "\n".join(f"{name} {versions[name]}" for name in files)
        version = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
        spans.append(Span(f"{mode}#{start}", len(chosen), root, first_row=start, files=files, version=version))
    return spans


def _sidecars(root: str, name: str, there: set[str]) -> Row | BadRow:
    """What the files beside a picture say of it: the values of a .json file, and a .txt file as the caption."""
    cells: dict[str, Any] = {}
    stem = name.rpartition(".")[0]
    try:
        if f"{stem}.json" in there:
            value = json.loads(read_bytes(join(root, f"{stem}.json")))
            cells = dict(value) if isinstance(value, dict) else {"caption": value}
        for extension in ("txt", "caption"):
            if f"{stem}.{extension}" in there:
                cells["caption"] = read_bytes(join(root, f"{stem}.{extension}"))
                break
    except FileNotFoundError as error:
        return BadRow("missing_file", f"the caption has gone: {error}")
    except (ValueError, RecursionError) as error:
        return BadRow("bad_row", f"{stem}.json: not JSON: {error}")
    return cells


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name.rpartition("/")[2] else ""
