"""Staged results of one span: a pack of processed samples end to end, and an index of all rows that went in.

The pack is named by its content and the index, written once and last, names the pack: so an attempt that runs beside
another, or after a killed one, can neither mix with it nor change what was decided.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from data_prep.build.store import RangeReader, Store, publish_file, scratch_file
from data_prep.tar import record_size

KEPT, NEGATIVE, REJECTED, IGNORED = "kept", "negative", "rejected", "ignored"
PACK, MISSING = b"pack", b"missing_scores"


@dataclass(frozen=True)
class Packed:
    """Where a sample lies in a pack: its manifest row as JSON, then its members in the order of their names."""

    offset: int
    size: int  # bytes of all of it
    head: int  # bytes of the JSON
    tar_size: int  # bytes that it will take in a shard


class PackWriter:
    """Appends samples to a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = 0

    def add(self, row: Mapping[str, Any], members: Mapping[str, bytes]) -> Packed:
        """Append one sample."""
        names = sorted(members)
        sizes = [len(members[name]) for name in names]
        head = json.dumps({"row": row, "members": list(zip(names, sizes, strict=True))}, sort_keys=True).encode()
        for content in (head, *(members[name] for name in names)):
            self._stream.write(content)
        size = len(head) + sum(sizes)
        packed = Packed(self._position, size, len(head), record_size(sizes))
        self._position += size
        return packed


def read_packed(content: bytes, head: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Manifest row and members of one packed sample."""
    values = json.loads(content[:head])
    members, position = {}, head
    for name, size in values["members"]:
        members[name] = content[position : position + size]
        position += size
    return values["row"], members


@dataclass
class Part:
    """The rows of one span on their way to staging; `rows` get the columns of `index_schema`."""

    pack: PackWriter
    rows: list[dict[str, Any]]
    missing: Counter[str] = field(default_factory=Counter)  # scores that could not be had, by scorer and reason


@contextmanager
def stage_part(store: Store, prefix: str, name: str) -> Iterator[Part]:
    """Collect one span and stage it with the end of the block, unless another attempt was faster.

    Args:
        prefix: of this build's staged files, ending in a slash.
        name: of the span.
    """
    with scratch_file(store) as path:
        with path.open("wb") as stream:
            part = Part(PackWriter(stream), [])
            yield part
        pack, _, _ = publish_file(store, path, f"{prefix}packs/{name}-{{}}.bin")
    if not store.put_first(index_name(prefix, name), _index_bytes(part, pack)):
        return  # what the winner's pack holds may differ; ours is swept with the staging


def index_name(prefix: str, name: str) -> str:
    """Name of a span's index, whose presence means that the span is done."""
    return f"{prefix}index/{name}.parquet"


def pack_of(table: Any) -> str:
    """Name of the pack that an index belongs to."""
    return str(table.schema.metadata[PACK].decode())


def missing_of(table: Any) -> dict[str, int]:
    """Scores of an index's span that could not be had, by scorer and reason."""
    found: dict[str, int] = json.loads(table.schema.metadata[MISSING])
    return found


def read_index(store: Store, name: str, columns: Sequence[str] | None = None) -> Any:
    """An index as a pyarrow table, all of it or some columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(store.read(name)), columns=None if columns is None else list(columns))


def read_sample(reader: RangeReader, pack: str, packed: Packed) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Manifest row and members of one sample in a pack."""
    return read_packed(reader.read(pack, packed.offset, packed.size), packed.head)


def _index_bytes(part: Part, pack: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    facts = {PACK: pack.encode(), MISSING: json.dumps(part.missing, sort_keys=True).encode()}
    table = pa.Table.from_pylist(part.rows, schema=index_schema().with_metadata(facts))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def index_schema() -> Any:
    """Columns of an index: one row per input, in the order of the source."""
    import pyarrow as pa

    text, long, real = pa.string(), pa.int64(), pa.float64()
    fate = [("status", text), ("reason", text), ("detail", text)]
    origin = [("source", text), ("row", text), ("url", text), ("licence", text), ("author", text)]
    content = [("kind", text), ("text", text), ("label", text), ("edit_type", text), ("width", long), ("height", long)]
    content += [("augmentation", text)]
    hashes = [("key", text), ("sha256", text), ("pixel_sha256", text), ("phash", long), ("phash_mirrored", long)]
    sources = [(f"source_{name}", kind) for name, kind in hashes[1:]]
    measured = [("scores", pa.map_(text, real)), ("embedding", pa.list_(pa.float16()))]
    placed = [("bucket", text), ("offset", long), ("size", long), ("head", long), ("tar_size", long)]
    failure = [("transient", pa.bool_()), ("http_status", long), ("failed_url", text), ("record", text)]
    shown = [("thumbnail", pa.binary())]
    return pa.schema([*fate, *origin, *content, *hashes, *sources, *measured, *placed, *failure, *shown])
