"""One tar, one pass: its samples become rows of a part of the index, what cannot be used rows of a part of the rejects.

A part is staged in `.index/` of the folder, named after the tar; its table of rows comes last, so that its presence
means that the tar is done.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from data_prep.index.samples import (
    Layout,
    Part,
    is_text,
    is_unicode,
    make_row,
    read_picture,
    read_text_part,
    split_name,
)
from data_prep.sources.columns import printable
from data_prep.sources.tar_header import Entry, Seekable, TarDamage, entries
from dreamline.config import Config, ConfigError, digest
from dreamline.data.foreign import PICTURES, ForeignError, IndexedShard, Roles
from dreamline.data.index import folder_columns
from dreamline.storage import FileEntry, is_remote, join, open_read, put, stat_file

SCAN_VERSION = 1  # raised when the same tar gives other rows
STAGING = ".index"
ROWS = 4096  # held at a time
SHARD = b"shard"  # key of a part's metadata
_BUFFER = 2**14  # bytes read at a time from a local file; contents between are passed over
REMEMBERED = 4096  # names, and sets of names, at a time
MEMBERS = 1000  # of a sample; what is read of them is held until the next sample begins


class IndexConfig(Config):
    """How tars are looked at."""

    roles: Roles = Roles()
    headers: bool = True  # read the sizes of pictures
    hashed: bool = False  # read every byte, for the sha256 of each tar

    def version(self) -> str:
        """Changes when the same tars give other rows."""
        return digest({"scan": SCAN_VERSION, **self.model_dump(mode="json")})


class Scanned(Config):
    """What is known of a scanned tar, kept with its part of the index."""

    shard: IndexedShard
    config: str  # version of the IndexConfig


def part_name(shard: str) -> str:
    """Name of a tar's part below the folder, without extension."""
    return f"{STAGING}/{hashlib.sha256(shard.encode()).hexdigest()[:24]}"


def row_schema() -> Any:
    """Columns of the index."""
    import pyarrow as pa

    text = pa.string()
    columns = folder_columns()
    for name in ("text", "label", "licence", "url"):
        columns = columns.append(pa.field(name, text))
    columns = columns.append(pa.field("width", pa.int32())).append(pa.field("height", pa.int32()))
    columns = columns.append(pa.field("scores", pa.map_(text, pa.float64())))
    columns = columns.append(pa.field("others", columns.field("members").type))  # members that nobody reads
    return columns.append(pa.field("digest", pa.binary(16)))


def reject_schema() -> Any:
    """Columns of the rejects."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in ("shard", "key", "member", "reason", "detail")])


@dataclass(frozen=True)
class Scanning:
    """What all tasks share."""

    folder: str
    config: IndexConfig

    def __call__(self, file: FileEntry) -> int:
        """Scan one tar and stage its part.

        Returns:
            Number of samples.

        Raises:
            ConfigError: the tar changes meanwhile, or nothing may be written beside it.
        """
        with TemporaryDirectory(prefix="dreamline-") as scratch:
            rows, rejects = Path(scratch) / "rows", Path(scratch) / "rejects"
            scanned = Scan(file.name, self.config).run(file, rows, rejects)
            name = join(self.folder, part_name(file.name))
            try:
                put(f"{name}.rejects.parquet", rejects)
                put(f"{name}.parquet", rows)
            except OSError as error:
                if not isinstance(error, PermissionError) and error.errno != errno.EROFS:
                    raise
                raise ConfigError(f"{self.folder}: an index lies beside its tars, but {error}") from None
        return scanned.shard.samples


class Scan:
    """Reads one tar."""

    def __init__(self, shard: str, config: IndexConfig) -> None:
        self._shard, self._config = shard, config
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._texts: dict[str, bool] = {}
        self._keys: set[str] = set()
        self._rejects: list[dict[str, Any]] = []
        self._group: list[Part] = []
        self._key: str | None = None

    def run(self, file: FileEntry, rows: Path, rejects: Path) -> Scanned:
        """Write both tables of the part to local files.

        Raises:
            ConfigError: the tar changes meanwhile.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema, samples, damage, waiting = row_schema(), 0, None, list[dict[str, Any]]()
        with pq.ParquetWriter(rows, schema, compression="zstd") as table:
            with _open(file.path) as tar:
                stream = Hashed(tar) if self._config.hashed else None
                try:
                    if tar.peek(2)[:2] == b"\x1f\x8b":
                        raise TarDamage("it is gzipped, whatever its name says; unpack it")
                    for row in self._samples(stream or tar):
                        waiting.append(row)
                        if len(waiting) == ROWS:
                            table.write_table(pa.Table.from_pylist(waiting, schema=schema))
                            samples, waiting = samples + ROWS, []
                except TarDamage as error:
                    damage = str(error)
                    self._reject("damaged_file", f"the last sample before the damage: {damage}", self._key)
                sha256 = stream.finish() if stream is not None else ""
            if waiting:
                table.write_table(pa.Table.from_pylist(waiting, schema=schema))
            if _version(file.path) != file.version:
                raise ConfigError(f"{file.path}: has changed while it was read; run the same command again")
            shard = IndexedShard(
                name=file.name,
                sha256=sha256,
                samples=samples + len(waiting),
                size=file.size,
                version=file.version,
                damage=damage,
            )
            scanned = Scanned(shard=shard, config=self._config.version())
            table.add_key_value_metadata({SHARD: scanned.model_dump_json().encode()})
        pq.write_table(pa.Table.from_pylist(self._rejects, schema=reject_schema()), rejects, compression="zstd")
        return scanned

    def _samples(self, stream: Seekable) -> Iterator[dict[str, Any]]:
        for entry in entries(stream):
            split = split_name(entry.name)
            if split is None or not is_unicode(entry.name):
                self._reject(*_no_part(entry.name), None, entry.name)
                continue
            if split[0] != self._key:
                yield from self._finish()
                self._key = split[0]
            if len(self._group) <= MEMBERS:  # one more, to be noticed
                self._group.append(self._read(stream, entry, split[1]))
        yield from self._finish()

    def _read(self, stream: Seekable, entry: Entry, name: str) -> Part:
        if name.rpartition(".")[2] in PICTURES:
            return read_picture(stream, entry, name) if self._config.headers else Part(name, entry, None)
        if name not in self._texts:
            if len(self._texts) >= REMEMBERED:
                self._texts.clear()
            self._texts[name] = is_text(name, self._config.roles)
        return read_text_part(stream, entry, name) if self._texts[name] else Part(name, entry, None)

    def _finish(self) -> Iterator[dict[str, Any]]:
        """The row of the sample that is complete, if it has one."""
        key, group = self._key, self._group
        self._key, self._group = None, []
        if key is None:
            return
        try:
            if key in self._keys:
                raise ForeignError("duplicate_key", "comes a second time; all members of a sample must stand together")
            self._keys.add(key)
            if len(group) > MEMBERS:
                raise ForeignError("too_many_members", f"more than {MEMBERS}; a key ends at the first dot of a name")
            row = make_row(key, group, self._layout(tuple(part.name for part in group)), self._config.roles)
        except ForeignError as error:
            self._reject(error.reason, error.detail, key, group[0].entry.name)
        else:
            yield {"shard": self._shard, **row}

    def _layout(self, names: tuple[str, ...]) -> Layout:
        if names not in self._layouts:
            if len(self._layouts) >= REMEMBERED:
                self._layouts.clear()
            self._layouts[names] = Layout.of(names, self._config.roles)
        return self._layouts[names]

    def _reject(self, reason: str, detail: str, key: str | None, member: str | None = None) -> None:
        told = {"shard": self._shard, "key": key, "member": member, "reason": reason, "detail": detail[:500]}
        self._rejects.append({name: None if value is None else printable(value) for name, value in told.items()})


class Hashed:
    """A stream that is read from start to end, whatever is passed over, and hashed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._position, self._sha256 = stream, 0, hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        content = self._stream.read(size)
        self._sha256.update(content)
        self._position += len(content)
        return content

    def seek(self, offset: int, /) -> int:
        """Go on to a later place, or to the end."""
        while self._position < offset and self.read(min(2**20, offset - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        """Bytes read so far."""
        return self._position

    def finish(self) -> str:
        """Read the rest; sha256 of it all."""
        while self.read(2**20):
            pass
        return self._sha256.hexdigest()


def _open(path: str) -> io.BufferedReader:
    return open_read(path) if is_remote(path) else io.BufferedReader(io.FileIO(path), _BUFFER)


def _no_part(name: str) -> tuple[str, str]:
    """Why a file belongs to no sample."""
    if not is_unicode(name):
        return "bad_name", "its name is not UTF-8"
    base = name.rpartition("/")[2]
    if base.startswith("."):
        return "hidden", "its name begins with a dot"
    return "no_extension", "without a dot in its name it belongs to no sample"


def _version(path: str) -> str | None:
    try:
        return stat_file(path).version
    except FileNotFoundError:
        return None
