"""`dreamline data index`: tars that others wrote become a data set where they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.build.progress import Progress, Say, silent
from data_prep.index.merge import THREADS, Merged, Source, publish, published, read_scanned
from data_prep.index.scan import STAGING, IndexConfig, Scanned, Scanning, part_name
from dreamline.cluster import map_tasks
from dreamline.config import ConfigError, build
from dreamline.data.collection import TableEntry
from dreamline.data.foreign import Names, Roles
from dreamline.data.index import FOLDER_INDEX, FOLDER_VERSION, FolderInfo
from dreamline.data.manifest import DATASET
from dreamline.storage import FileEntry, delete, is_remote, join, list_files, read_bytes

_ZIPPED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.z")
_TABLE = re.compile(r"index(-rejects)?-[0-9a-f]{12}\.parquet")


@dataclass(frozen=True)
class Outcome:
    """What is in the index now."""

    folder: str
    info: FolderInfo
    num_read: int  # tars that were read this time
    num_gone: int  # tars that the last index had
    examples: Mapping[str, str]  # of what cannot be used, one for each reason

    def summary(self) -> dict[str, Any]:
        """The JSON object that the command ends with."""
        return {
            "index": join(self.folder, FOLDER_INDEX),
            "fingerprint": self.info.fingerprint,
            "num_samples": self.info.num_samples,
            "num_shards": len(self.info.shards),
            "num_bytes": sum(shard.size for shard in self.info.shards),
            "num_shards_read": self.num_read,
            "num_shards_gone": self.num_gone,
            "num_renamed": self.info.num_renamed,
            "rejected": self.info.rejected,
            "examples": dict(self.examples),
            "rejects": join(self.folder, self.info.rejects.name) if self.info.rejects else None,
            "damaged": {shard.name: shard.damage for shard in self.info.shards if shard.damage is not None},
        }


def index_folder(
    location: str,
    roles: Mapping[str, Names] | None = None,
    headers: bool | None = None,
    hashed: bool | None = None,
    workers: int = 1,
    say: Say = silent,
) -> Outcome:
    """Index tars, or what is new or has changed among them.

    Args:
        location: folder or s3:// prefix; tars at any depth.
        roles: which members are what, by role; those that are not named stay as in the last index, or as by default.
        headers: whether to read the sizes of pictures. None: as in the last index, else yes.
        hashed: whether to read every byte, for the sha256 of each tar. None: as in the last index, else no.
        workers: tars at a time.

    Raises:
        ConfigError: no tars, zipped ones, or a data set that needs no index.
    """
    folder = location.rstrip("/")
    files = _tars(folder)
    old = _read_old(folder)
    before = IndexConfig() if old is None else IndexConfig(roles=old.roles, headers=old.headers, hashed=old.hashed)
    config = IndexConfig(
        roles=build(Roles, {**dict(before.roles), **(roles or {})}, "roles"),
        headers=before.headers if headers is None else headers,
        hashed=before.hashed if hashed is None else hashed,
    )
    known = _known(old, config) if old is not None else {}
    todo = [file for file in files if file.name not in known or known[file.name].scanned.shard.version != file.version]
    staged = _staged(folder, todo, config)
    tasks = [file for file in todo if file.name not in staged]
    if tasks:
        progress = Progress("tars", len(files), len(files) - len(tasks), say)
        map_tasks(Scanning(folder, config), tasks, workers, progress)
        staged |= _staged(folder, tasks, config)
    for file in todo:
        known[file.name] = Source(staged[file.name])
    sources = [known[file.name] for file in files]
    info = FolderInfo(
        name=(folder if is_remote(folder) else str(Path(folder).resolve())).rpartition("/")[2] or folder,
        fingerprint="",
        num_samples=0,
        table=TableEntry(name="", sha256="", size=0, rows=0),
        shards=tuple(source.scanned.shard for source in sources),
        roles=config.roles,
        headers=config.headers,
        hashed=config.hashed,
        scan=config.version(),
    )
    merged = _publish(info, folder, old, sources, changed=bool(todo) or config != before)
    names = {file.name for file in files}
    gone = sum(shard.name not in names for shard in old.shards) if old is not None else 0
    return Outcome(folder, merged.info, len(tasks), gone, merged.examples)


def _publish(info: FolderInfo, folder: str, old: FolderInfo | None, sources: Sequence[Source], changed: bool) -> Merged:
    """Publish what has changed, and remove what led to it and what it replaces, an interrupted run's too."""
    if old is not None and not changed and len(old.shards) == len(sources):
        merged = published(folder, old)
    else:
        try:
            merged = publish(info, folder, old, sources)
        except ConfigError:  # another attempt would find the same
            _remove(folder, list_files(join(folder, STAGING)))
            raise
    listed = {table.name for table in (merged.info.table, merged.info.rejects) if table is not None}
    tables = [file for file in list_files(folder) if _TABLE.fullmatch(file.name) and file.name not in listed]
    _remove(folder, [*tables, *list_files(join(folder, STAGING))])
    return merged


def _tars(folder: str) -> list[FileEntry]:
    """All tars, sorted by name."""
    try:
        there = list_files(folder)
    except FileNotFoundError as error:
        raise ConfigError(f"{error}; name a folder or s3:// prefix that is there") from None
    if not there and not is_remote(folder) and not Path(folder).exists():
        raise ConfigError(f"{folder}: there is no such folder; name the folder of the tars")
    if any(file.name == DATASET for file in there):
        raise ConfigError(f"{folder}: has a {DATASET}: this data set is one of ours and needs no index")
    for file in there:
        if file.name.lower().endswith(_ZIPPED):
            raise ConfigError(
                f"{file.path}: is a zipped archive, in which no sample can be reached without reading all before it; "
                "unpack it (gunzip) or move it elsewhere, and index again"
            )
    tars = sorted((file for file in there if file.name.lower().endswith(".tar")), key=lambda file: file.name)
    if not tars or tars[0].path != join(folder, tars[0].name):  # a file, or a glob
        seen = ", ".join(file.name for file in there[:5]) or "no files at all"
        raise ConfigError(f"{folder}: not a folder of .tar files (there are: {seen}); name the folder of the tars")
    return tars


def _read_old(folder: str) -> FolderInfo | None:
    """The index that is there, unless it is of another version.

    Raises:
        ConfigError: the file is damaged or somebody else's; it is not replaced.
    """
    path = join(folder, FOLDER_INDEX)
    try:
        values = json.loads(read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path}: not readable as JSON ({error}); delete it and index again") from None
    if not isinstance(values, dict) or not {"schema_version", "table", "shards"} <= set(values):
        raise ConfigError(f"{path}: was written by another tool, and the index needs this name; move it elsewhere")
    return build(FolderInfo, values, path) if values["schema_version"] == FOLDER_VERSION else None


def _known(old: FolderInfo, config: IndexConfig) -> dict[str, Source]:
    """Tars whose rows can be taken from the old index."""
    if old.scan != config.version():
        return {}
    found, first = {}, 0
    for shard in old.shards:
        found[shard.name] = Source(Scanned(shard=shard, config=old.scan), first)
        first += shard.samples
    return found


def _staged(folder: str, files: Sequence[FileEntry], config: IndexConfig) -> dict[str, Scanned]:
    """What is staged of these tars as they are now, by name."""
    there = {file.name for file in list_files(join(folder, STAGING))} if files else set()
    wanted = [file for file in files if f"{part_name(file.name).rpartition('/')[2]}.parquet" in there]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda file: read_scanned(folder, file.name), wanted)
        return {
            file.name: scanned
            for file, scanned in zip(wanted, found, strict=True)
            if scanned is not None
            and (scanned.config, scanned.shard.version) == (config.version(), file.version)
            and scanned.shard.name == file.name
        }


def _remove(folder: str, files: Sequence[FileEntry]) -> None:
    """Remove files; and the folder of staged parts, if it is empty then."""
    for file in files:
        delete(file.path)
    if not is_remote(folder):
        with suppress(OSError):  # not there, or somebody else is at work
            (Path(folder) / STAGING).rmdir()
