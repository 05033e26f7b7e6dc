"""Checking a published data set byte by byte, and removing what does not belong to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.build.progress import Progress, Say, silent
from data_prep.build.published import read_dataset
from data_prep.build.store import STAGING, Store, open_store
from data_prep.build.tables import fingerprint_of, local_file
from dreamline.cluster import map_tasks
from dreamline.config import ConfigError
from dreamline.data.collection import CollectionInfo, Increment, ShardFile, TableEntry
from dreamline.data.manifest import DATASET

BATCH = 1000  # manifest rows held at a time
OURS = re.compile(  # names that builds give; nothing else is ever removed, and neither is the report
    r"(negatives/)?[a-z0-9][a-z0-9_-]*-(t2i|edit)(-\d+x\d+)?-\d{6,}-[0-9a-f]{12}\.tar"
    r"|(manifest|negatives-manifest|preferences|rejects|failures|evidence|embeddings)-[0-9a-f]{12}\.parquet"
    rf"|{re.escape(STAGING)}/.*|\.report\.(html|json)\.tmp-\d+"
)


@dataclass
class Verification:
    """What was looked at, and what is wrong."""

    fingerprint: str
    num_files: int = 0
    num_samples: int = 0
    num_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything is as it was published."""
        return not self.problems

    def summary(self) -> dict[str, Any]:
        """The JSON object that the command ends with."""
        return {"ok": self.ok, **vars(self)}


@dataclass(frozen=True)
class Checking:
    """Checks one shard against its rows of the manifest."""

    location: str

    def __call__(self, task: tuple[TableEntry, ShardFile, int]) -> list[str]:
        """Problems of one shard whose rows begin at a row of its manifest."""
        table, shard, start = task
        store = open_store(self.location)
        try:
            with local_file(store, shard.name) as path:
                problems = _check_file(path, shard.name, shard.size, shard.sha256)
                rows = _rows(store, table, start, shard.samples)
                return problems + [problem for row in rows for problem in _check_row(path, shard, row)]
        except FileNotFoundError:
            return [f"{shard.name}: missing"]


def verify(location: str, workers: int = 1, say: Say = silent) -> Verification:
    """Hash every file and every member of every sample again, and the whole's fingerprint.

    Raises:
        ConfigError: there is no data set.
    """
    store = open_store(location)
    info = _info(store)
    found = Verification(info.fingerprint)
    for table in _tables(info):
        found.num_files += 1
        found.num_bytes += table.size
        try:
            with local_file(store, table.name) as path:
                found.problems += _check_file(path, table.name, table.size, table.sha256)
        except FileNotFoundError:
            found.problems.append(f"{table.name}: missing")
    if found.problems:
        return found  # without sound manifests nothing else can be judged
    tasks = [task for increment in info.increments for task in _tasks(increment)]
    progress = Progress("shards", len(tasks), 0, say)
    counted = map_tasks(Checking(location), tasks, workers, lambda done, _: progress(done, 0))
    found.problems += [problem for problems in counted for problem in problems]
    found.num_files += len(tasks)
    found.num_bytes += sum(shard.size for _, shard, _ in tasks)
    found.num_samples = sum(shard.samples for shard in info.shards)
    if found.num_samples != info.num_samples:
        found.problems.append(f"{DATASET}: says {info.num_samples} samples, the shards hold {found.num_samples}")
    manifests = [(item.manifest, item.shards) for item in info.increments if item.manifest is not None]
    actual = fingerprint_of(store, manifests)
    if actual != info.fingerprint:
        found.problems.append(f"{DATASET}: says fingerprint {info.fingerprint}, the samples have {actual}")
    return found


def collect_garbage(location: str, dry_run: bool = False) -> list[str]:
    """Remove what killed builds left behind: staged files, and shards and tables that the data set does not list.

    Only files with names that builds give are touched. No build may be running on the same output.

    Returns:
        Their names, sorted.

    Raises:
        ConfigError: the data set is damaged.
    """
    store = open_store(location)
    info = read_dataset(store)
    listed = {file.name for file in info.files()} if info is not None else set()
    orphans = [name for name in store.names() if OURS.fullmatch(name) and name not in listed]
    for name in () if dry_run else orphans:
        store.delete(name)
    return orphans


def _info(store: Store) -> CollectionInfo:
    info = read_dataset(store)
    if info is None:
        raise ConfigError(
            f"{store.location}: no {DATASET}; not a data set, or its build is not finished (run it again)"
        )
    return info


def _tables(info: CollectionInfo) -> list[TableEntry]:
    return [file for file in info.files() if isinstance(file, TableEntry)]


def _tasks(increment: Increment) -> Iterator[tuple[TableEntry, ShardFile, int]]:
    pairs = ((increment.manifest, increment.shards), (increment.negatives_manifest, increment.negatives))
    for table, shards in pairs:
        if table is None:
            continue
        start = 0
        for shard in shards:
            yield table, shard, start
            start += shard.samples


def _check_file(path: Path, name: str, size: int, sha256: str) -> list[str]:
    actual = path.stat().st_size
    if actual != size:
        return [f"{name}: {actual} bytes, was published with {size}"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [] if digest == sha256 else [f"{name}: damaged (sha256 {digest}, was published with {sha256})"]


def _rows(store: Store, table: TableEntry, start: int, count: int) -> Iterator[dict[str, Any]]:
    """Rows start..start+count-1 of a manifest."""
    import pyarrow.parquet as pq

    position = 0
    with local_file(store, table.name) as path, pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if position < start + count and position + size > start:
                rows = file.read_row_group(group, columns=["key", "shard", "members"])
                rows = rows.slice(max(0, start - position), min(start + count, position + size) - max(start, position))
                yield from rows.to_pylist()
            position += size


def _check_row(path: Path, shard: ShardFile, row: dict[str, Any]) -> Iterator[str]:
    if row["shard"] != shard.name:
        yield f"{shard.name}: the manifest puts sample {row['key']} into {row['shard']}"
    with path.open("rb") as file:
        for member in row["members"]:
            file.seek(member["offset"])
            content = file.read(member["size"])
            if hashlib.sha256(content).hexdigest() != member["sha256"]:
                yield f"{shard.name}: sample {row['key']}, member {member['name']} is damaged"
