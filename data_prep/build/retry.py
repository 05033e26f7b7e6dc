"""Failures of earlier builds as a source of their own: rows come out of the ledger, so no source is read again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import numpy as np

from data_prep.build.store import Store
from data_prep.build.tables import local_file
from data_prep.record import Picture, Problem, Provenance, Record
from dreamline.data.collection import CollectionInfo

Only = Literal["all", "transient", "permanent"]
ONLY: dict[str, Only] = {name: name for name in get_args(Only)}

SPAN = 1000  # rows


@dataclass(frozen=True)
class RetrySpan:
    """Some rows of a table of failures."""

    table: str
    rows: tuple[int, ...]


def retry_spans(store: Store, info: CollectionInfo, only: Only) -> list[RetrySpan]:
    """The failures of a version that are of a class and can be tried again, in spans."""
    chosen: list[int] = []
    columns = ["transient", "record"]
    for number, batch in _batches(store, info.failures.name, columns):
        for place, (transient, record) in enumerate(
            zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
        ):
            if record is not None and (only == "all" or bool(transient) == (only == "transient")):
                chosen.append(number + place)
    return [RetrySpan(info.failures.name, tuple(chosen[i : i + SPAN])) for i in range(0, len(chosen), SPAN)]


def read_retries(store: Store, span: RetrySpan) -> Iterator[tuple[str, Iterator[Record | Problem]]]:
    """The rows of a span as records again, by source."""
    for source, rows in groupby(_rows(store, span), lambda row: str(row["source"])):
        yield source, (record_from_json(row["record"]) for row in rows)


def record_from_json(text: str) -> Record:
    """Inverse of `dataclasses.asdict` and JSON."""
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
