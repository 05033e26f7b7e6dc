"""Parts of an index become one version of it: rows in the order of the tars, and `index.json` last.

The tables have a hash of their content in their names, so whoever follows `index.json` sees one version, whatever is
being written beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.index.scan import SHARD, Scanned, part_name, reject_schema, row_schema
from dreamline.config import ConfigError
from dreamline.data.collection import TableEntry
from dreamline.data.index import FOLDER_INDEX, FolderInfo
from dreamline.storage import get_file, is_remote, join, open_read, put, sha256

TABLE, REJECTS = "index-{}.parquet", "index-rejects-{}.parquet"
ROWS = 65_536  # of a row group
THREADS = 16  # parts fetched at a time from S3
_DIGEST = np.dtype([("high", ">u8"), ("low", ">u8")])


@dataclass(frozen=True)
class Source:
    """Where the rows of one tar come from."""

    scanned: Scanned
    first: int | None = None  # row in the old index; None: from its part


@dataclass(frozen=True)
class Merged:
    """What was published."""

    info: FolderInfo
    examples: dict[str, str]  # of what cannot be used, one for each reason


def read_scanned(folder: str, shard: str) -> Scanned | None:
    """What a staged part says of its tar, or None if there is none."""
    import pyarrow.parquet as pq

    try:
        with open_read(join(folder, f"{part_name(shard)}.parquet"), 2**16) as file:
            return Scanned.model_validate_json(pq.read_metadata(file).metadata[SHARD])
    except FileNotFoundError:
        return None


def publish(info: FolderInfo, folder: str, old: FolderInfo | None, sources: Sequence[Source]) -> Merged:
    """Write the tables and then index.json.

    Args:
        info: all but what follows from the rows: fingerprint, tables and counts.
        folder: of the tars, with staged parts of all that are not in the old index.
        old: what index.json says now.
        sources: of the rows, in the order of the tars.

    Raises:
        ConfigError: there is no sample, or the old index is not what it was.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with TemporaryDirectory(prefix="dreamline-") as name:
        scratch = Path(name)
        tables = _Tables(folder, old, sources, scratch)
        twice = _repeated(np.concatenate([np.zeros(0, np.uint64), *(_hashes(keys) for keys in tables.all_keys())]))
        digests, renamed, waiting = [b""], 0, list[Any]()
        with pq.ParquetWriter(scratch / "table", row_schema(), compression="zstd") as writer:
            for shard, rows in tables.rows():
                named, count = _rename(rows, shard, twice)
                renamed += count
                digests += named.column("digest").to_pylist()
                waiting.append(named)
                if sum(map(len, waiting)) >= ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        rejected = tables.rejects()
        told = examples(rejected)
        if len(digests) == 1:
            lines = [
                f"{folder}: there is no sample that can be used",
                *(f"  {why}: {who}" for why, who in told.items()),
            ]
            raise ConfigError("\n".join(lines))
        pq.write_table(rejected, scratch / "rejects", compression="zstd")
        info = info.model_copy(
            update={
                "fingerprint": fingerprint(b"".join(digests)),
                "num_samples": len(digests) - 1,
                "num_renamed": renamed,
                "rejected": dict(sorted(_counts(rejected.column("reason")).items())),
                "table": _put(folder, scratch / "table", TABLE, len(digests) - 1),
                "rejects": _put(folder, scratch / "rejects", REJECTS, len(rejected)) if len(rejected) else None,
            }
        )
    put(join(folder, FOLDER_INDEX), info.model_dump_json(indent=1).encode() + b"\n")
    return Merged(info, told)


def published(folder: str, info: FolderInfo) -> Merged:
    """What there is already."""
    import pyarrow.parquet as pq

    with TemporaryDirectory(prefix="dreamline-") as scratch:
        if info.rejects is None:
            return Merged(info, {})
        return Merged(info, examples(pq.read_table(_fetch(folder, info.rejects, Path(scratch) / "rejects"))))


def examples(rejects: Any) -> dict[str, str]:
    """For each reason the first of what cannot be used, as a person is told."""
    found: dict[str, str] = {}
    for batch in rejects.to_batches():
        reasons = batch.column("reason").to_pylist()
        for number in sorted(reasons.index(reason) for reason in set(reasons) - set(found)):
            row = batch.slice(number, 1).to_pylist()[0]
            who = row["key"] if row["key"] is not None else row["member"]
            told = ": ".join(part for part in (row["shard"], who, row["detail"]) if part)
            found[row["reason"]] = "".join(
                letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in told
            )
    return found


def fingerprint(digests: bytes) -> str:
    """sha256 over the sorted digests of all samples, 16 bytes each, whatever the layout of tars."""
    return hashlib.sha256(np.sort(np.frombuffer(digests, _DIGEST)).tobytes()).hexdigest()


class _Tables:
    """The rows and rejects of all tars on this machine."""

    def __init__(self, folder: str, old: FolderInfo | None, sources: Sequence[Source], scratch: Path) -> None:
        self._sources, self._scratch = sources, scratch
        self._old = self._old_rejects = None
        if old is not None and any(source.first is not None for source in sources):
            self._old = _fetch(folder, old.table, scratch / "old")
            self._old_rejects = _fetch(folder, old.rejects, scratch / "old-rejects") if old.rejects else None
        self._parts = {
            source.scanned.shard.name: Path(join(folder, part_name(source.scanned.shard.name)))
            for source in sources
            if source.first is None
        }
        if is_remote(folder):
            with ThreadPoolExecutor(THREADS) as pool:
                self._parts = dict(pool.map(lambda shard: (shard, _fetch_part(folder, shard, scratch)), self._parts))

    def all_keys(self) -> Iterator[list[str]]:
        """The keys of each tar, as they are in it."""
        for shard, rows in self.rows(["key"]):
            yield _plain(rows.column("key").to_pylist(), shard)

    def rows(self, columns: list[str] | None = None) -> Iterator[tuple[str, Any]]:
        """Each tar with the table of its rows."""
        import pyarrow.parquet as pq

        old = _Cursor(self._old, columns) if self._old is not None else None
        for source in self._sources:
            shard = source.scanned.shard
            if source.first is not None and old is not None:
                yield shard.name, old.take(source.first, shard.samples)
            else:
                yield shard.name, pq.read_table(f"{self._parts[shard.name]}.parquet", columns=columns)

    def rejects(self) -> Any:
        """The rejects of all tars."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        found = [reject_schema().empty_table()]
        kept = [source.scanned.shard.name for source in self._sources if source.first is not None]
        if self._old_rejects is not None:
            old = pq.read_table(self._old_rejects)
            found.append(old.filter(pc.is_in(old.column("shard"), pa.array(kept, pa.string()))))
        return pa.concat_tables([*found, *(pq.read_table(f"{path}.rejects.parquet") for path in self._parts.values())])


class _Cursor:
    """Goes forwards through a parquet file."""

    def __init__(self, path: Path, columns: list[str] | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        self._batches = file.iter_batches(ROWS, columns=columns)
        self._rest = pa.Table.from_batches([], row_schema() if columns is None else _only(row_schema(), columns))
        self._position = 0  # of the rest

    def take(self, first: int, count: int) -> Any:
        """Rows first..first+count-1; `first` never goes back."""
        import pyarrow as pa

        while self._position + len(self._rest) < first + count:
            dropped = min(len(self._rest), max(0, first - self._position))
            self._position += dropped
            batch = pa.Table.from_batches([next(self._batches)])
            self._rest = pa.concat_tables([self._rest.slice(dropped), batch.cast(self._rest.schema)])
        self._rest = self._rest.slice(first - self._position)
        self._position = first
        return self._rest.slice(0, count)


def _only(schema: Any, columns: list[str]) -> Any:
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in columns])


def _fetch(folder: str, entry: TableEntry, path: Path) -> Path:
    """A table of the old index as a local file, checked."""
    source = join(folder, entry.name)
    try:
        if is_remote(folder):
            get_file(source, path)
        else:
            path = Path(source)
        whole = sha256(path) == entry.sha256
    except FileNotFoundError:
        whole = False
    if not whole:
        raise ConfigError(f"{source}: missing or damaged; delete {join(folder, FOLDER_INDEX)} and index again")
    return path


def _fetch_part(folder: str, shard: str, scratch: Path) -> Path:
    path = scratch / Path(part_name(shard)).name
    for ending in (".parquet", ".rejects.parquet"):
        get_file(join(folder, f"{part_name(shard)}{ending}"), Path(f"{path}{ending}"))
    return path


def _put(folder: str, path: Path, name: str, rows: int) -> TableEntry:
    digest = sha256(path)
    entry = TableEntry(name=name.format(digest[:12]), sha256=digest, size=path.stat().st_size, rows=rows)
    put(join(folder, entry.name), path)
    return entry


def _plain(keys: list[str], shard: str) -> list[str]:
    """Keys without the name of the tar that an earlier merge put in front."""
    return [key.removeprefix(f"{shard}/") for key in keys]


def _hashes(keys: list[str]) -> npt.NDArray[np.uint64]:
    joined = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(joined, np.uint64)


def _repeated(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Values that occur more than once, sorted."""
    ordered = np.sort(hashes)
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _rename(rows: Any, shard: str, twice: npt.NDArray[np.uint64]) -> tuple[Any, int]:
    """Put the tar's name in front of keys that other tars have, too; keys are unique in a tar. And how many."""
    import pyarrow as pa

    keys = _plain(rows.column("key").to_pylist(), shard)
    shared = np.isin(_hashes(keys), twice) if len(twice) else np.zeros(len(keys), bool)
    names = [f"{shard}/{key}" if also else key for key, also in zip(keys, shared.tolist(), strict=True)]
    column = rows.schema.get_field_index("key")
    return rows.set_column(column, "key", pa.array(names, pa.string())), int(shared.sum())


def _counts(column: Any) -> dict[str, int]:
    import pyarrow.compute as pc

    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}
