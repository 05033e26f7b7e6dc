"""Small data sets in shards, local and on S3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.tar import TarWriter
from dreamline import storage_s3
from dreamline.config import digest
from dreamline.data.collection import TableEntry
from dreamline.data.foreign import IndexedShard
from dreamline.data.index import FOLDER_INDEX, FolderInfo, folder_columns
from dreamline.data.manifest import MANIFEST, DatasetInfo, ShardEntry, write_info
from dreamline.data.sample import Sample, encode_png
from dreamline.storage import put, sha256, write_json

FOLDER_TABLE = "index.parquet"


def sample(number: int, kind: str = "t2i", side: int = 4) -> Sample:
    """A picture of noise, so that larger ones are larger files."""
    pixels = np.random.default_rng(number).integers(0, 255, (2, side, side, 3), np.uint8)
    image, source = (encode_png(pixels[i]) for i in (0, 1))
    more = {"source": source} if kind == "edit" else {}
    return Sample(f"key-{number:05d}", kind, f"text {number}", "label", {"n": number}, side, side, image, **more)  # type: ignore[arg-type]


def write_shards(
    folder: Path, sizes: Sequence[int], kind: str, side: int
) -> tuple[list[ShardEntry], list[dict[str, Any]]]:
    """Shards of some numbers of samples, and the rows of their manifest."""
    folder.mkdir(parents=True)
    entries, rows, number = [], [], 0
    for i, size in enumerate(sizes):
        path = folder / f"{i:04d}.tar"
        with path.open("wb") as stream:
            tar = TarWriter(stream)
            for _ in range(size):
                one = sample(number, kind, side)
                members = tar.write(one.key, one.members())
                number += 1
                rows.append({"key": one.key, "shard": path.name, "text": one.text, "width": side, "members": members})
            tar.close()
        entries.append(ShardEntry(name=path.name, sha256=sha256(path), samples=size, size=path.stat().st_size))
    return entries, rows


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    """What the shards hold, by number."""
    return sample


@pytest.fixture(scope="session")
def make_set() -> Callable[..., Path]:
    """Writes a scene data set."""

    def make(folder: Path, sizes: Sequence[int], kind: str = "t2i", side: int = 4) -> Path:
        entries, rows = write_shards(folder, sizes, kind, side)
        pq.write_table(pa.Table.from_pylist(rows), folder / MANIFEST)
        info = DatasetInfo(
            kind=kind,  # type: ignore[arg-type]
            name="test",
            plan="plan",
            fingerprint=digest([len(rows), kind, side]),
            width=side,
            height=side,
            shards=tuple(entries),
            num_inputs=len(rows),
            num_samples=len(rows),
            rejected={},
            parents={},
            statistics={},
        )
        write_info(info, folder)
        return folder

    return make


@pytest.fixture
def make_indexed() -> Callable[..., Path]:
    """Writes tars that are indexed in place; the first member of each sample has no hash."""

    def make(folder: Path, sizes: Sequence[int]) -> Path:
        entries, rows = write_shards(folder, sizes, "t2i", 4)
        for row in rows:
            row["kind"] = "t2i"
            row["members"][0]["sha256"] = None
        schema = folder_columns()
        for name, kind in (("text", pa.string()), ("scores", pa.map_(pa.string(), pa.float64()))):
            schema = schema.append(pa.field(name, kind))
        for number, row in enumerate(rows):
            row["scores"] = [("blur", number / 2)] if number % 2 else []
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / FOLDER_TABLE, row_group_size=3)
        size = (folder / FOLDER_TABLE).stat().st_size
        table = TableEntry(name=FOLDER_TABLE, sha256=sha256(folder / FOLDER_TABLE), size=size, rows=len(rows))
        fingerprint = hashlib.sha256(str(len(rows)).encode()).hexdigest()
        shards = tuple(IndexedShard(**entry.model_dump()) for entry in entries)
        info = FolderInfo(name="theirs", fingerprint=fingerprint, num_samples=len(rows), table=table, shards=shards)
        write_json(folder / FOLDER_INDEX, info.model_dump(mode="json"))
        return folder

    return make


@pytest.fixture
def upload(bucket: str) -> Callable[[Path], str]:
    """Puts a folder on S3 and says where."""
    storage_s3._client.cache_clear()

    def send(folder: Path) -> str:
        for file in folder.iterdir():
            put(f"{bucket}/sets/one/{file.name}", file)
        return f"{bucket}/sets/one"

    return send
