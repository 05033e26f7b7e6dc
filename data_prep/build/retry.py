"""Failures of earlier builds as a source of their own: rows come out of the ledger, or again out of the part of their
source that holds them, where the ledger cannot hold their bytes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import numpy as np

from data_prep.build.config import BuildConfig
from data_prep.build.store import Store
from data_prep.build.tables import local_file
from data_prep.record import Picture, Problem, Provenance, Record
from data_prep.sources.reader import Span, open_source
from dreamline.data.collection import CollectionInfo

Only = Literal["all", "transient", "permanent"]
ONLY: dict[str, Only] = {name: name for name in get_args(Only)}

SPAN = 1000  # rows


@dataclass(frozen=True)
class RetrySpan:
    """Some rows of a table of failures."""

    table: str
    rows: tuple[int, ...]

    name = ""  # of no source


@dataclass(frozen=True)
class RereadSpan:
    """Some rows of a span of a source: their bytes are not in the table of failures."""

    span: Span
    rows: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the span, in its source."""
        return self.span.name


def retry_spans(
    store: Store, config: BuildConfig, info: CollectionInfo, only: Only
) -> list[tuple[int, RetrySpan | RereadSpan]]:
    """The failures of a version that are of a class and can be tried again, in spans.

    Returns:
        Each with the number of its source where that has to be read again, else -1. Rows of spans that the source no
        longer has are left out: it has changed, so the next build looks at all of it.

    Raises:
        ConfigError: a source cannot be read.
    """
    chosen: list[int] = []
    again: dict[str, dict[str, list[str]]] = {}  # rows by source and span
    columns = ["transient", "record", "source"]
    for number, batch in _batches(store, info.failures.name, columns):
        values = zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
        for place, (transient, record, source) in enumerate(values):
            if record is None or (only != "all" and bool(transient) != (only == "transient")):
                continue
            if (where := json.loads(record)).keys() == {"span", "row"}:
                again.setdefault(source, {}).setdefault(where["span"], []).append(where["row"])
            else:
                chosen.append(number + place)
    table = info.failures.name
    found: list[tuple[int, RetrySpan | RereadSpan]] = [
        (-1, RetrySpan(table, tuple(chosen[i : i + SPAN]))) for i in range(0, len(chosen), SPAN)
    ]
    for number, name in enumerate(config.source_names):
        rows = again.get(name, {})
        spans = open_source(config.sources[number]).spans() if rows else []
        found += [(number, RereadSpan(span, tuple(rows[span.name]))) for span in spans if span.name in rows]
    return found


def read_retries(store: Store, span: RetrySpan) -> Iterator[tuple[str, Iterator[Record | Problem]]]:
    """The rows of a span as records again, by source."""
    for source, rows in groupby(_rows(store, span), lambda row: str(row["source"])):
        yield source, (record_from_json(row["record"]) for row in rows)


def record_json(record: Record) -> str | None:
    """A record without bytes as JSON, to try it again; None where bytes came along."""
    if any(
        picture is not None and picture.content is not None for picture in (record.image, record.source, record.mask)
    ):
        return None
    return json.dumps(dataclasses.asdict(record), sort_keys=True)


def record_from_json(text: str) -> Record:
    """Inverse of `record_json`."""
    values = json.loads(text)
    for name in ("image", "source", "mask"):
        if values[name] is not None:
            values[name] = Picture(**values[name])
    values["provenance"] = Provenance(**values["provenance"])
    return Record(**values)


def _rows(store: Store, span: RetrySpan) -> Iterator[dict[str, Any]]:
    wanted: Sequence[int] = span.rows
    last = wanted[-1] if wanted else -1
    for number, batch in _batches(store, span.table, ["source", "record"]):
        if number > last:
            return
        inside = [row - number for row in wanted if number <= row < number + len(batch)]
        yield from batch.take(np.asarray(inside, np.int64)).to_pylist()


def _batches(store: Store, table: str, columns: list[str]) -> Iterator[tuple[int, Any]]:
    """Batches of a table, each with the number of its first row."""
    import pyarrow.parquet as pq

    number = 0
    with local_file(store, table) as path:
        for batch in pq.ParquetFile(path).iter_batches(SPAN, columns=columns):
            yield number, batch
            number += len(batch)
