"""The second phase, one task per shard: samples come out of the packs in the planned order, into a published tar."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

from data_prep.build.pack import Packed, read_sample
from data_prep.build.plan import ShardPlan
from data_prep.build.store import RangeReader, Store, open_store, publish_file, scratch_file
from data_prep.tar import TarWriter
from dreamline.data.collection import ShardFile

ENTRY = b"shard"
ROWS = 1000  # of the manifest held at a time
READERS = 8  # reads under way where the packs are not local
AHEAD = 32  # samples


@dataclass(frozen=True)
class Writing:
    """What all tasks of the phase share."""

    output: str
    prefix: str  # of staged files

    def __call__(self, plan: ShardPlan) -> int:
        """Write one shard, then its part of the manifest, whose presence means that the shard is done.

        Returns:
            Number of samples.
        """
        store = open_store(self.output)
        with scratch_file(store) as tar, scratch_file(store) as table:
            with tar.open("wb") as stream, table.open("wb") as rows:
                _write(store, plan, stream, rows)
            name, digest, size = publish_file(store, tar, f"{plan.stem}-{{}}.tar")
            entry = ShardFile(
                name=name,
                sha256=digest,
                size=size,
                samples=len(plan),
                kind=plan.group.kind,
                bucket=plan.group.bucket,
            )
            store.put_file(f"{part_name(self.prefix, plan)}.parquet", table)
            store.put(f"{part_name(self.prefix, plan)}.json", entry.model_dump_json().encode())
        return len(plan)


def part_name(prefix: str, plan: ShardPlan) -> str:
    """Name of a shard's part of the manifest, without extension."""
    return f"{prefix}shards/{plan.number:06d}"


def read_entry(store: Store, prefix: str, plan: ShardPlan, sizes: dict[str, int]) -> ShardFile | None:
    """What an earlier attempt has published of a shard, or None. `sizes` are those of all files of the store."""
    name = f"{part_name(prefix, plan)}.json"
    if name not in sizes:
        return None
    entry = ShardFile.model_validate(json.loads(store.read(name)))
    return entry if sizes.get(entry.name) == entry.size else None


def manifest_schema() -> Any:
    """Columns of a manifest; those of the scene world's come first."""
    import pyarrow as pa

    text, short, long = pa.string(), pa.int32(), pa.int64()
    member = pa.struct([("name", text), ("offset", long), ("size", long), ("sha256", text)])
    names = ("key", "shard", "split", "text", "label", "facts")
    sized = [("width", short), ("height", short), ("members", pa.list_(member))]
    sample = [("kind", text), ("bucket", text), ("edit_type", text), ("reason", text), ("weight", pa.float64())]
    written = [(name, text) for name in ("original_text", "caption_model", "caption_prompt_sha256")]
    made = [("augmentation", text), ("parents", pa.list_(text))]
    origin = ("source", "row", "row_id", "url", "final_url", "page_url", "licence", "licence_url", "author")
    permission = ("opt_out", "robots")
    hashes = [(name, text) for name in ("sha256", "source_sha256", "pixel_sha256", "source_pixel_sha256")]
    perceptual = [(name, long) for name in ("phash", "phash_mirrored", "source_phash", "source_phash_mirrored")]
    size = [(name, short) for name in ("original_width", "original_height", "bits", "frames", "orientation")]
    picture = [("format", text), ("mode", text), ("decoder", text), ("notes", pa.list_(text))]
    flags = [(name, pa.bool_()) for name in ("alpha", "icc", "reencoded")]
    measured = [("scores", pa.map_(text, pa.float64())), ("extra", pa.map_(text, text))]
    texts = [(name, text) for name in (*names,)]
    plain = [(name, text) for name in (*origin, *permission)]
    return pa.schema(
        [*texts, *sized, *sample, *written, *made, *plain, *hashes, *perceptual, *size, *picture, *flags, *measured]
    )


def _write(store: Store, plan: ShardPlan, stream: BinaryIO, sink: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tar, schema, rows = TarWriter(stream), manifest_schema(), []
    with pq.ParquetWriter(sink, schema, compression="zstd") as table:
        for number, (row, members) in enumerate(_samples(store, plan)):
            row |= {
                "split": "negative" if plan.group.negative else "train",
                "members": tar.write(row["key"], members),
                "scores": sorted(row["scores"].items()),
                "extra": sorted(row["extra"].items()),
                "weight": None if plan.weight is None else float(plan.weight[number]),
            }
            rows.append(row)
            if len(rows) == ROWS:
                table.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        if rows:
            table.write_table(pa.Table.from_pylist(rows, schema=schema))
    tar.close()


def _samples(store: Store, plan: ShardPlan) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """The samples of a shard in order, read a little ahead."""

    def read(number: int) -> tuple[dict[str, Any], dict[str, bytes]]:
        place = Packed(int(plan.offset[number]), int(plan.size[number]), int(plan.head[number]), 0)
        return read_sample(reader, plan.packs[int(plan.pack[number])], place)

    reader: RangeReader = store.ranges()
    waiting: deque[Future[tuple[dict[str, Any], dict[str, bytes]]]] = deque()
    pool = ThreadPoolExecutor(READERS)
    try:
        if store.location.startswith("s3://"):
            for number in range(len(plan)):
                waiting.append(pool.submit(read, number))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        else:
            yield from map(read, range(len(plan)))
    finally:
        pool.shutdown(cancel_futures=True)
        reader.close()
