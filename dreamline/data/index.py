"""`SampleIndex`: where each sample of a data set lies, and what its manifest says of it, whoever wrote the data set.

Three kinds of folders are understood, local or on s3://: a scene data set (`dataset.json` and `manifest.parquet`), a
build (`dataset.json` that lists manifests), and tars of others that were indexed in place (`index.json`, written last,
and the table that it names). Nothing is ever written into them: what is derived lies in a cache folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dreamline import storage
from dreamline.config import Config, ConfigError, build, digest
from dreamline.data.collection import COLLECTION_VERSION, TableEntry, parse_collection
from dreamline.data.foreign import IndexedShard, Roles, to_sample
from dreamline.data.manifest import DATASET, MANIFEST, DatasetInfo
from dreamline.data.order import Indices
from dreamline.data.places import COLUMNS, HEAD, PLACES_VERSION, Places, derive, map_names
from dreamline.data.sample import Sample

FOLDER_INDEX = "index.json"
FOLDER_VERSION = 1
UNHASHED = "unhashed-"


class FolderInfo(Config):
    """Content of `index.json`: tars that others wrote, indexed where they lie. It is written last."""

    schema_version: int = FOLDER_VERSION
    name: str
    fingerprint: str  # over keys and members of all samples, whatever the layout of shards
    num_samples: int
    table: TableEntry  # one row per sample, in the order of the shards
    shards: tuple[IndexedShard, ...]
    roles: Roles = Roles()  # which member of a sample is what
    headers: bool = True  # whether sizes of pictures were read
    hashed: bool = False  # whether every byte was read, for the sha256 of each tar
    scan: str = ""  # changes with what was asked for, and with the code that reads tars
    num_renamed: int = 0  # samples whose key several tars have; the tar's name stands in front of it
    rejected: dict[str, int] = {}  # by reason
    rejects: TableEntry | None = None  # what cannot be used: shard, sample, member, reason, detail


def folder_columns() -> Any:
    """The columns that its table must have, as a pyarrow schema; all other columns are free."""
    import pyarrow as pa

    text, long = pa.string(), pa.int64()
    member = pa.struct([("name", text), ("offset", long), ("size", long), ("sha256", text)])  # sha256 may be null
    return pa.schema([("key", text), ("kind", text), ("shard", text), ("members", pa.list_(member))])


class Shard(NamedTuple):
    """One tar."""

    name: str  # below the data set
    sha256: str  # of a tar of others that was not hashed: what tells its version, behind `UNHASHED`
    size: int  # bytes
    samples: int

    @property
    def hashed(self) -> bool:
        """Whether the hash of the content is known."""
        return not self.sha256.startswith(UNHASHED)


class Member(NamedTuple):
    """One file of a sample, in its shard."""

    name: str  # what follows the key and a dot
    offset: int  # bytes
    size: int  # bytes


class Location(NamedTuple):
    """Where one sample lies."""

    key: str
    shard: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class _Content:
    """What a data set says of itself."""

    name: str
    fingerprint: str
    kind: str | None
    tables: tuple[tuple[str, str | None], ...]  # name and, where it is known, sha256 of each manifest
    shards: tuple[Shard, ...]
    cure: str
    roles: Roles | None = None  # of tars of others


class SampleIndex:
    """The samples of a data set by row, in the order of its manifests, which is that of its shards.

    Attributes:
        name, fingerprint: as the data set says.
        folder: local path or s3:// URL.
        shards: all tars.
        cure: what to do about a damaged file.
        roles: which member of a sample is what, in tars of others; None in ours.
    """

    def __init__(self, folder: str, content: _Content, places: Places) -> None:
        self.folder, self.name, self.fingerprint, self.cure = folder, content.name, content.fingerprint, content.cure
        self.shards, self.roles = content.shards, content.roles
        self.places = places
        self.first_rows = np.cumsum([0, *(shard.samples for shard in self.shards)])  # [shards + 1]
        self._state = (folder, content, places.folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, self._state

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def layout(self) -> str:
        """Digest of the shards in their order, which row numbers depend on, unlike the fingerprint."""
        return str(digest([[shard.sha256, shard.samples] for shard in self.shards]))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds that occur: "t2i", "edit"."""
        return tuple(sorted({layout.kind for layout in self.places.layouts}, reverse=True))

    def kind(self, row: int) -> str:
        """Kind of one sample."""
        return self.places.layouts[int(self.places.layout[row])].kind

    def key(self, row: int) -> str:
        """Key of one sample."""
        start, end = self.places.key_start[row], self.places.key_start[row + 1]
        return str(self.places.key[start:end].tobytes(), "utf-8")

    def member_hashes(self, row: int) -> list[str | None]:
        """sha256 of each member of one sample, in the order of its members; None where it is not known."""
        return [member.get("sha256") for member in self._members[row].as_py()]

    @cached_property
    def _members(self) -> Any:
        return self.column("members")

    def shard_of(self, rows: Indices) -> Indices:
        """Number of the shard that each row lies in."""
        return np.searchsorted(self.first_rows, rows, side="right").astype(np.int64) - 1

    def locate(self, rows: Indices | Sequence[int]) -> list[Location]:
        """Where the samples of some rows lie.

        Raises:
            IndexError: no such row.
        """
        wanted = np.asarray(rows, np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"{self.folder}: has the rows 0 to {len(self) - 1}, asked for {wanted.tolist()}")
        places, found = self.places, []
        for row, shard in zip(wanted.tolist(), self.shard_of(wanted).tolist(), strict=True):
            span = slice(places.first[row], places.first[row + 1])
            names = places.layouts[places.layout[row]].names
            spans = zip(names, places.offset[span].tolist(), places.size[span].tolist(), strict=True)
            found.append(Location(self.key(row), shard, tuple(Member(*place) for place in spans)))
        return found

    def sample(self, key: str, members: Mapping[str, bytes]) -> Sample:
        """Make a sample of the content of its members.

        Raises:
            ValueError: a member is missing or cannot be read; names the sample.
        """
        return Sample.from_members(key, members) if self.roles is None else to_sample(key, members, self.roles)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the manifests; of one that maps names to values `<column>.<name>` too, such as `scores.blur`."""
        return (*self._arrow().schema.names, *map_names(self.places.maps))

    def column(self, name: str) -> Any:
        """One column for all rows, a memory-mapped pyarrow ChunkedArray; chunks are the same for all columns.

        Raises:
            ConfigError: there is no such column; names those that are there.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        column, _, key = name.partition(".")
        if name not in self.columns:
            raise ConfigError(f"{self.folder}: has no column {name!r}; there are {', '.join(self.columns)}")
        options = pa.ipc.IpcReadOptions(included_fields=[self._arrow().schema.get_field_index(column)])
        with pa.ipc.open_file(pa.memory_map(str(self.places.folder / COLUMNS)), options=options) as file:
            whole = file.read_all().column(0)
        return pc.map_lookup(whole, key, "first") if key else whole

    def _arrow(self) -> Any:
        import pyarrow as pa

        return pa.ipc.open_file(pa.memory_map(str(self.places.folder / COLUMNS)))


def default_cache() -> Path:
    """Where derived files go by default: the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreamline"


def open_index(folder: str | Path, cache: Path | None = None) -> SampleIndex:
    """The samples of a scene data set, of a build, or of a folder of tars that `dreamline data index` has indexed.

    Args:
        folder: local path or s3:// URL.
        cache: folder for what is derived from the manifests, once for each version of a data set.

    Raises:
        ConfigError: it is none of these, or its files do not belong together; says what to do.
    """
    text = str(folder).rstrip("/")
    content = _read_content(text)
    cache = (cache or default_cache()) / "index"
    hashes = [known or _hash(storage.join(text, name)) for name, known in content.tables]
    shards = [(shard.name, shard.size, shard.samples) for shard in content.shards]
    place = cache / digest([PLACES_VERSION, content.kind, hashes, shards])
    with lock(cache / f"{place.name}.lock"):
        if not (place / HEAD).is_file():
            with _fetched(text, content, hashes, cache) as tables:
                try:
                    derive(tables, shards, content.kind, place)
                except ConfigError as error:
                    raise ConfigError(f"{text}: {error}") from None
    return SampleIndex(text, content, Places(place))


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one process of a machine at a time in; a lock ends with its process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _reopen(folder: str, content: _Content, place: Path) -> SampleIndex:
    return SampleIndex(folder, content, Places(place))


def _read_content(folder: str) -> _Content:
    """What a folder's marker says.

    Raises:
        ConfigError: it has none, or it cannot be read.
    """
    path = storage.join(folder, DATASET)
    try:
        text = storage.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        return _read_folder_info(folder)
    values = parse_marker(text, path)
    if values.get("schema_version") == COLLECTION_VERSION:
        collection = parse_collection(text, path)
        tables = tuple((table.name, table.sha256) for table in collection.manifests)
        shards = tuple(Shard(item.name, item.sha256, item.size, item.samples) for item in collection.shards)
        cure = "copy it back from where it is whole, or build the data set again"
        return _Content(collection.name, collection.fingerprint, None, tables, shards, cure)
    if "text_dim" in values:
        raise ConfigError(f"{path}: describes encoded samples; name the data set that they were made from")
    info = build(DatasetInfo, values, path)
    shards = tuple(Shard(item.name, item.sha256, item.size, item.samples) for item in info.shards)
    cure = "delete the folder's dataset.json and the run's result.json, and run the data job again"
    return _Content(info.name, info.fingerprint, info.kind, ((MANIFEST, None),), shards, cure)


def _read_folder_info(folder: str) -> _Content:
    path = storage.join(folder, FOLDER_INDEX)
    try:
        values = parse_marker(storage.read_bytes(path), path)
    except (FileNotFoundError, NotADirectoryError):
        if not storage.is_remote(folder) and not Path(folder).is_dir():
            raise ConfigError(f"{folder}: there is no such folder") from None
        raise ConfigError(
            f"{folder}: no {DATASET} and no {FOLDER_INDEX}; not a data set, or its job has not finished (run it "
            f"again). Tars that others wrote become one by `dreamline data index {folder}`"
        ) from None
    if values.get("schema_version") != FOLDER_VERSION:
        raise ConfigError(
            f"{path}: schema {values.get('schema_version')}, this code reads {FOLDER_VERSION}; "
            f"run `dreamline data index {folder}` again"
        )
    info = build(FolderInfo, values, path)
    origin = folder if storage.is_remote(folder) else ""  # only copies need it; a local folder may be moved
    shards = tuple(
        Shard(
            item.name, item.sha256 or f"{UNHASHED}{digest([origin, item.name, item.version])}", item.size, item.samples
        )
        for item in info.shards
    )
    cure = f"if the change is meant, run `dreamline data index {folder}` again, else copy the file back"
    return _Content(
        info.name, info.fingerprint, None, ((info.table.name, info.table.sha256),), shards, cure, info.roles
    )


def parse_marker(content: bytes, path: str) -> dict[str, Any]:
    """What describes a data set, as plain JSON.

    Raises:
        ConfigError: not a JSON object.
    """
    try:
        values = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not readable as JSON ({error}); restore it, or make the data set again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a JSON object; restore it, or make the data set again")
    return values


def _hash(path: str) -> str:
    try:
        with storage.open_read(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; copy it back, or make the data set again") from None


@contextmanager
def _fetched(folder: str, content: _Content, hashes: Sequence[str], cache: Path) -> Iterator[list[tuple[str, Path]]]:
    """Name and local path of each manifest, checked."""
    tables = []
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        for number, ((name, _), expected) in enumerate(zip(content.tables, hashes, strict=True)):
            source, path = storage.join(folder, name), Path(folder) / name
            try:
                if storage.is_remote(folder):
                    path = Path(scratch) / f"{number}.parquet"
                    storage.get_file(source, path)
                found = storage.sha256(path)
            except FileNotFoundError:
                raise ConfigError(f"{source}: missing; {content.cure}") from None
            if found != expected:
                raise ConfigError(f"{source}: is damaged (sha256 {found[:12]}, not {expected[:12]}); {content.cure}")
            tables.append((source, path))
        yield tables
