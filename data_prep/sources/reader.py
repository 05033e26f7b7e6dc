"""What every reader of a source can do: name its parts, and read one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from data_prep.record import Problem, Record
from data_prep.sources.config import SourceConfig
from data_prep.sources.presets import layout_of

SPAN_ROWS = 1000  # rows of a span, roughly
MAX_SPANS = 256  # of one file (or row group) that cannot be entered midway: each part reads over what comes before it


@dataclass(frozen=True)
class Span:
    """A part of a source, the unit of work. Equal as long as the source is unchanged; can be pickled."""

    name: str  # unique in its source
    num_rows: int | None  # None where only reading tells
    file: str = ""  # path or URL; of a folder the folder
    start: int = 0  # rows or bytes, as its reader counts
    stop: int | None = None  # None: to the end
    first_row: int = 0  # number of the first row in its file
    columns: tuple[str, ...] = ()  # of a list with a header: their names
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
    from data_prep.sources.folder import FolderReader
    from data_prep.sources.scene_records import ScenesReader
    from data_prep.sources.tables import TableReader
    from data_prep.sources.webdataset import WebDatasetReader

    if config.scenes is not None:
        return ScenesReader(config.scenes, config.name or "scenes")
    layout = layout_of(config)
    if config.kind == "webdataset":
        return WebDatasetReader(config.path, layout)
    if config.kind == "folder":
        return FolderReader(config.path, layout, config.caption)
    return TableReader(config.path, layout, only_parquet=config.kind == "parquet")
