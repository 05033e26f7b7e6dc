"""Embeddings of the samples of a data set, a table per build beside its manifest; new samples are compared to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.build.config import BuildConfig
from data_prep.build.pack import index_name, read_index
from data_prep.build.plan import Staged
from data_prep.build.store import Store, publish_file, scratch_file
from data_prep.build.tables import local_file
from data_prep.filters.columns import EMBEDDING
from data_prep.filters.config import EmbeddingDuplicates
from dreamline.data.collection import CollectionInfo, TableEntry

BATCH = 2048  # rows held at a time
NAME = "embeddings"


def wants_embeddings(config: BuildConfig) -> bool:
    """Whether a rule compares embeddings."""
    return any(isinstance(rule, EmbeddingDuplicates) for rule in config.filters.sets)


def write_embeddings(store: Store, prefix: str, staged: Staged, kept: NDArray[np.bool_]) -> TableEntry | None:
    """Publish key and embedding of each sample that is kept, and the instructions of edits; None where there are none.

    In the order of spans and rows, a span at a time.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = pa.schema([("key", pa.string()), ("kind", pa.string()), ("text", pa.string())])
    schema = schema.append(pa.field(EMBEDDING, pa.list_(pa.float16())))
    chosen = np.flatnonzero(kept & ~staged.negative)
    if not len(chosen):
        return None
    with scratch_file(store) as path:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for span, numbers in staged.by_span(chosen):
                table = read_index(store, index_name(prefix, staged.spans[span]), schema.names)
                table = table.take(staged.row[numbers])
                instructions = pc.if_else(pc.equal(table["kind"], "edit"), table["text"], None)
                writer.write_table(table.set_column(2, "text", instructions).cast(schema))
        name, digest, size = publish_file(store, path, f"{NAME}-{{}}.parquet")
    return TableEntry(name=name, sha256=digest, size=size, rows=len(chosen))


def held_embeddings(store: Store, before: CollectionInfo | None) -> Iterator[Any]:
    """The tables of a version in batches."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for increment in before.increments if before is not None else ():
        if increment.embeddings is not None:
            with local_file(store, increment.embeddings.name) as path, pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH):
                    yield pa.Table.from_batches([batch])


def num_without(before: CollectionInfo | None) -> int:
    """Samples of a version that were added without embeddings."""
    increments = before.increments if before is not None else ()
    return sum(item.num_kept + item.num_augmented for item in increments if item.embeddings is None)
