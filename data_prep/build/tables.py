"""Tables of a version: manifests, rejects and failures, merged in a stream and named by their content."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.build.known import Known
from data_prep.build.pack import IGNORED, KEPT, Packed, index_name, index_schema, pack_of, read_index, read_sample
from data_prep.build.plan import Refusals, ShardPlan, Staged
from data_prep.build.shard import manifest_schema, part_name
from data_prep.build.store import FolderStore, Store, publish_file, scratch_file
from data_prep.build.thumbnail import thumbnail_of
from dreamline.data.collection import CollectionInfo, ShardFile, TableEntry, fingerprint_sorted

BATCH = 1000  # rows held at a time
REJECT_COLUMNS = (
    *("source", "row", "key", "reason", "detail", "status", "kind", "text", "label", "edit_type", "url", "licence"),
    *("author", "width", "height", "bucket", "sha256", "source_sha256", "phash", "scores", "thumbnail"),
)
FAILURE_COLUMNS = ("source", "row", "failed_url", "reason", "detail", "transient", "http_status", "record")


def write_manifest(
    store: Store, prefix: str, plans: Sequence[ShardPlan], entries: Sequence[ShardFile], name: str
) -> TableEntry | None:
    """Merge the parts of some shards; None where there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not entries:
        return None
    schema, count = manifest_schema(), 0
    place = schema.get_field_index("shard")
    with scratch_file(store) as path:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for plan, entry in zip(plans, entries, strict=True):
                content = store.read(f"{part_name(prefix, plan)}.parquet")
                for batch in pq.ParquetFile(pa.BufferReader(content)).iter_batches(BATCH):
                    names = pa.array([entry.name] * len(batch), pa.string())
                    writer.write_batch(batch.set_column(place, schema.field(place), names))
                    count += len(batch)
        return _publish(store, path, name, count)


class RejectTables:
    """Rejects and failures of a version: what earlier builds left and this one did not see again, then its own."""

    def __init__(
        self, store: Store, prefix: str, spans: Sequence[str], before: CollectionInfo | None, num_shown: int
    ) -> None:
        self.store, self.prefix, self.spans, self.before = store, prefix, spans, before
        self.num_shown = num_shown  # pictures per reason
        self._shown: Counter[str] = Counter()
        self._again = self._rows_of_this_build() if before is not None else np.zeros(0, "S16")

    def write_rejects(self, staged: Staged, refusals: Refusals) -> TableEntry:
        """All rejected inputs."""
        late: dict[str, dict[int, tuple[str, str]]] = {}
        for sample, problem in refusals.by_sample.items():
            span, row = next(staged.where(np.asarray([sample])))
            late.setdefault(span, {})[row] = problem
        return self._write("rejects", REJECT_COLUMNS, late)

    def write_failures(self) -> TableEntry:
        """Those that could not be fetched."""
        return self._write("failures", FAILURE_COLUMNS, {})

    def _write(self, name: str, columns: Sequence[str], late: dict[str, dict[int, tuple[str, str]]]) -> TableEntry:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema, count = _table_schema(columns), 0
        with scratch_file(self.store) as path:
            with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                own = (self._own(span, columns, late.get(span, {})) for span in self.spans)
                for rows in chain(self._earlier(name), own):
                    if len(rows):
                        writer.write_table(pa.table(rows.columns, schema=schema))
                        count += len(rows)
            return _publish(self.store, path, name, count)

    def _own(self, span: str, columns: Sequence[str], late: dict[int, tuple[str, str]]) -> Any:
        import pyarrow as pa

        failures = columns is FAILURE_COLUMNS
        table = read_index(self.store, index_name(self.prefix, span), [*dict.fromkeys([*columns, "status"])])
        status = table.column("status").to_pylist()
        if failures:
            rows = [i for i, url in enumerate(table.column("failed_url").to_pylist()) if url is not None]
            return table.select(columns).take(np.asarray(rows, np.int64))
        rows = [i for i, value in enumerate(status) if i in late or value not in (KEPT, IGNORED)]
        chosen = table.select(columns).take(np.asarray(rows, np.int64))
        if late:
            for at, name in ((0, "reason"), (1, "detail")):
                values = chosen.column(name).to_pylist()
                merged = [late[row][at] if row in late else value for row, value in zip(rows, values, strict=True)]
                chosen = chosen.set_column(columns.index(name), name, pa.array(merged, pa.string()))
            chosen = self._show(span, rows, late, chosen, columns)
            fates = ["rejected" if row in late else status[row] for row in rows]
            chosen = chosen.set_column(columns.index("status"), "status", pa.array(fates, pa.string()))
        return chosen

    def _show(
        self, span: str, rows: Sequence[int], late: dict[int, tuple[str, str]], chosen: Any, columns: Sequence[str]
    ) -> Any:
        """Add thumbnails of the first few samples of each reason that rules over the set rejected."""
        import pyarrow as pa

        table = read_index(self.store, index_name(self.prefix, span), ["offset", "size", "head", "tar_size"])
        pack, places = pack_of(table), table.to_pylist()
        pictures = chosen.column("thumbnail").to_pylist()
        reader = self.store.ranges()
        for number, row in enumerate(rows):
            if row in late and self._shown[late[row][0]] < self.num_shown:
                self._shown[late[row][0]] += 1
                pictures[number] = thumbnail_of(read_sample(reader, pack, Packed(**places[row]))[1])
        reader.close()
        return chosen.set_column(columns.index("thumbnail"), "thumbnail", pa.array(pictures, pa.binary()))

    def _earlier(self, name: str) -> Iterator[Any]:
        """Rows of the version before that this build did not look at again."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.before is None:
            return
        entry: TableEntry = getattr(self.before, name)
        with local_file(self.store, entry.name) as path:
            for batch in pq.ParquetFile(path).iter_batches(BATCH):
                table = pa.Table.from_batches([batch])
                hashes = row_hashes(table)
                yield table.filter(pa.array(~np.isin(hashes, self._again)))

    def _rows_of_this_build(self) -> NDArray[np.bytes_]:
        tables = (read_index(self.store, index_name(self.prefix, span), ["source", "row"]) for span in self.spans)
        parts = [row_hashes(table) for table in tables]
        return np.unique(np.concatenate(parts)) if parts else np.zeros(0, "S16")


def known_hashes(store: Store, before: CollectionInfo | None) -> Known:
    """What a version holds: keys, rows that need not be fetched again, and keys of negatives."""
    if before is None:
        empty = np.zeros(0, "S16")
        return Known(empty, empty, empty)
    negatives = [item.negatives_manifest for item in before.increments if item.negatives_manifest is not None]
    return Known(
        keys=_column_hashes(store, before.manifests, "key"),
        rows=_column_hashes(store, before.manifests, "row_id"),
        negatives=_column_hashes(store, negatives, "key"),
    )


def _column_hashes(store: Store, tables: Sequence[TableEntry], column: str) -> NDArray[np.bytes_]:
    """The hex strings of a column, sorted, as 16 bytes each."""
    import pyarrow.parquet as pq

    parts = [np.zeros(0, "S16")]
    for entry in tables:
        with local_file(store, entry.name) as path, pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=[column]):
                values = (value for value in batch.column(column).to_pylist() if value is not None)
                parts.append(np.asarray([bytes.fromhex(value) for value in values], "S16"))
    return np.sort(np.concatenate(parts))


def row_hashes(table: Any) -> NDArray[np.bytes_]:
    """What tells a row of a source again, S16 each."""
    pairs = zip(table.column("source").to_pylist(), table.column("row").to_pylist(), strict=True)
    return np.asarray([hashlib.sha256(f"{source}\0{row}".encode()).digest()[:16] for source, row in pairs], "S16")


def fingerprint_of(store: Store, manifests: Sequence[tuple[TableEntry, Sequence[ShardFile]]]) -> str:
    """Fingerprint of all samples of a version, merged from runs that are sorted already.

    Args:
        store: where they lie.
        manifests: each with its shards, in its order.
    """
    with ExitStack() as stack:
        runs = []
        for entry, shards in manifests:
            path = stack.enter_context(local_file(store, entry.name))
            start = 0
            for count in _runs(shards):
                runs.append(_hashes(path, start, start + count))
                start += count
        return fingerprint_sorted(heapq.merge(*runs))


def _runs(shards: Sequence[ShardFile]) -> Iterator[int]:
    """Numbers of consecutive samples that are sorted by key: all shards of one kind and bucket."""
    last, count = None, 0
    for shard in shards:
        if last not in (None, (shard.kind, shard.bucket)):
            yield count
            count = 0
        last = (shard.kind, shard.bucket)
        count += shard.samples
    if count:
        yield count


def _hashes(path: Path, start: int, stop: int) -> Iterator[tuple[str, ...]]:
    """Key and member hashes of manifest rows start..stop-1."""
    import pyarrow.parquet as pq

    position = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if position < stop and position + size > start:
                table = file.read_row_group(group, columns=["key", "members"])
                table = table.slice(max(0, start - position), min(stop, position + size) - max(start, position))
                for key, members in zip(*(table.column(name).to_pylist() for name in ("key", "members")), strict=True):
                    yield (key, *(member["sha256"] for member in members))
            position += size


@contextmanager
def local_file(store: Store, name: str) -> Iterator[Path]:
    """A path at which a file of the store can be read."""
    if isinstance(store, FolderStore):
        yield store.root / name
        return
    with scratch_file(store) as path:
        store.fetch(name, path)
        yield path


def _table_schema(columns: Sequence[str]) -> Any:
    import pyarrow as pa

    whole = index_schema()
    return pa.schema([whole.field(name) for name in columns])


def _publish(store: Store, path: Path, name: str, rows: int) -> TableEntry:
    target, digest, size = publish_file(store, path, f"{name}-{{}}.parquet")
    return TableEntry(name=target, sha256=digest, size=size, rows=rows)
