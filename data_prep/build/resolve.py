"""From the rows of a source to the bytes of their pictures, in order; what need not be fetched is not."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from data_prep.fetch.ahead import fetch_all
from data_prep.fetch.fetcher import Fetcher
from data_prep.fetch.outcome import Fetched, FetchFailure, Outcome
from data_prep.record import Picture, Problem, Record

IN_DATASET = "in_dataset"  # the reason of rows that are ignored


@dataclass(frozen=True)
class Resolved:
    """A row with the bytes of its pictures."""

    ordinal: int  # of the row in its span
    record: Record
    image: bytes
    source: bytes | None = None
    mask: bytes | None = None
    fetched: Fetched | None = None  # what the server said of `image`, where it was fetched

    @functools.cached_property
    def sha256(self) -> str:
        """Of the picture's bytes."""
        return hashlib.sha256(self.image).hexdigest()

    @functools.cached_property
    def source_sha256(self) -> str | None:
        """Of the source picture's bytes."""
        return None if self.source is None else hashlib.sha256(self.source).hexdigest()


@dataclass(frozen=True)
class Dropped:
    """A row that goes no further."""

    ordinal: int
    record: Record | None  # None where the source could not make a record of it
    problem: Problem
    failure: FetchFailure | None = None
    ignored: bool = False


Row = Resolved | Dropped


def resolve(
    rows: Iterable[Record | Problem],
    fetcher: Callable[[], Fetcher],
    threads: int,
    is_known: Callable[[str], bool] = lambda _: False,
) -> Iterator[Row]:
    """Fetch what has to be fetched.

    Args:
        rows: of one span.
        fetcher: makes or returns the fetcher; called only where a row needs one.
        threads: downloads at a time.
        is_known: whether the data set holds a row of this `row_id` already; then it is not fetched again.
    """
    numbered = (_screen(ordinal, row, is_known) for ordinal, row in enumerate(rows))
    for remote, group in groupby(numbered, lambda row: not isinstance(row, Dropped) and bool(_urls(row[1]))):
        if remote:
            yield from _fetch_group((row for row in group if not isinstance(row, Dropped)), fetcher(), threads)
        else:
            for row in group:
                yield row if isinstance(row, Dropped) else _assemble(*row, {})


def row_id(record: Record) -> str | None:
    """What tells a row again before its pictures are fetched; None where bytes come along and tell it better."""
    pictures = [picture for picture in (record.image, record.source, record.mask) if picture is not None]
    if any(picture.url is None or picture.content is not None for picture in pictures):
        return None
    identity = [record.kind, record.text, *(picture.url for picture in pictures)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def sample_key(record: Record, sha256: str, source_sha256: str | None) -> str:
    """Key of the sample: from the bytes of the picture, or of both pictures and the instruction."""
    if record.kind == "t2i":
        return sha256[:32]
    return edit_key(source_sha256, sha256, record.text)


def edit_key(source_sha256: str | None, sha256: str, text: str | None) -> str:
    """Key of an edit, from the hashes of both files and the instruction."""
    return hashlib.sha256(f"{source_sha256}|{sha256}|{text or ''}".encode(errors="replace")).hexdigest()[:32]


@dataclass
class _Waiting:
    ordinal: int
    record: Record
    urls: list[str] = field(default_factory=list)


def _screen(ordinal: int, row: Record | Problem, is_known: Callable[[str], bool]) -> Dropped | tuple[int, Record]:
    if isinstance(row, Problem):
        return Dropped(ordinal, None, row)
    identity = row_id(row)
    if identity is not None and is_known(identity):
        return Dropped(ordinal, row, Problem(row.row, IN_DATASET, "fetched by an earlier build"), ignored=True)
    return ordinal, row


def _urls(record: Record) -> list[str]:
    pictures = (record.image, record.source, record.mask)
    return [picture.url for picture in pictures if picture is not None and picture.content is None and picture.url]


def _fetch_group(rows: Iterable[tuple[int, Record]], fetcher: Fetcher, threads: int) -> Iterator[Row]:
    waiting: deque[_Waiting] = deque()

    def wanted() -> Iterator[str]:
        for ordinal, record in rows:
            entry = _Waiting(ordinal, record, _urls(record))
            waiting.append(entry)
            yield from entry.urls

    got: dict[str, Outcome] = {}
    num_left = 0
    for outcome in fetch_all(fetcher, wanted(), threads):
        if not num_left:
            num_left = len(waiting[0].urls)
        got[outcome.url] = outcome
        num_left -= 1
        if not num_left:
            entry = waiting.popleft()
            yield _assemble(entry.ordinal, entry.record, got)
            got = {}


def _assemble(ordinal: int, record: Record, outcomes: Mapping[str, Outcome]) -> Row:
    contents: list[bytes | None] = []
    for role, picture in (("image", record.image), ("source", record.source), ("mask", record.mask)):
        found = None if picture is None else _content(picture, outcomes)
        if isinstance(found, FetchFailure):
            detail = found.detail if role == "image" else f"{role}: {found.detail}"
            return Dropped(ordinal, record, Problem(record.row, found.reason, detail), found)
        if picture is not None and found is None:
            return Dropped(ordinal, record, Problem(record.row, "no_picture", f"the row has no {role}"))
        contents.append(found)
    image, source, mask = contents
    if image is None or (record.kind == "edit" and source is None):
        return Dropped(ordinal, record, Problem(record.row, "no_picture", "the edit has no source picture"))
    fetched = outcomes.get(record.image.url or "")
    return Resolved(ordinal, record, image, source, mask, fetched if isinstance(fetched, Fetched) else None)


def _content(picture: Picture, outcomes: Mapping[str, Outcome]) -> bytes | FetchFailure | None:
    if picture.content is not None:
        return picture.content
    outcome = outcomes.get(picture.url or "")
    return outcome.content if isinstance(outcome, Fetched) else outcome
