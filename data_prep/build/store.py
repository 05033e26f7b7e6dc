"""Where a data set lies: a folder or an S3 prefix, with the few atomic operations that a build needs of it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from dreamline.config import ConfigError
from dreamline.storage import sync, write_bytes

STAGING = ".staging"
_OPEN_FILES = 128


class Conflict(ConfigError):
    """Somebody else has published a version in the meantime."""


class Store(Protocol):
    """Files below one place, by relative name. May be pickled, and used by several processes at once."""

    location: str

    def check(self) -> None:
        """ConfigError: the place cannot be used."""
        ...

    def names(self, prefix: str = "") -> dict[str, int]:
        """Size in bytes of every file whose name begins with a prefix, sorted by name."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file. FileNotFoundError: it is not there."""
        ...

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to a local path. FileNotFoundError: it is not there."""
        ...

    def ranges(self) -> RangeReader:
        """A reader of parts of files."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Write a file as a whole; one that is there is replaced."""
        ...

    def put_file(self, name: str, path: Path) -> None:
        """Move a file of `scratch` to its name, as a whole. The name tells the content: one that is there is equal."""
        ...

    def put_first(self, name: str, content: bytes) -> bool:
        """Write a file unless it is there already; of several writers at once the first one wins. Whether we did."""
        ...

    def swap(self, name: str, content: bytes, before: bytes | None) -> None:
        """Replace a file if it still holds `before` (None: if it is not there). Conflict: it does not."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        ...

    def clear(self, folder: str) -> None:
        """Remove everything below a folder."""
        ...

    def scratch(self) -> TemporaryDirectory[str]:
        """A local folder for files under way, which can be moved to their names cheaply. Removed with the block."""
        ...


class RangeReader(Protocol):
    """Reads parts of files; keeps some of them open until closed."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Bytes offset..offset+size-1. OSError: the file is missing or shorter."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def open_store(location: str) -> Store:
    """A store at a folder or `s3://bucket/prefix`."""
    if location.startswith("s3://"):
        from data_prep.build.s3 import S3Store

        return S3Store(location)
    if "://" in location:
        raise ConfigError(f"output: {location} is neither a folder nor s3://bucket/prefix")
    return FolderStore(location)


class FolderStore:
    """A folder on a file system that all nodes see. Files under way lie in `.staging` until they get their names."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.root = Path(location)

    def check(self) -> None:
        """See `Store`."""
        place = next(path for path in (self.root, *self.root.parents) if path.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise ConfigError(f"output: {self.location} cannot be written; choose another folder")

    def names(self, prefix: str = "") -> dict[str, int]:
        """See `Store`."""
        folder = self.root / prefix.rpartition("/")[0]
        found = {}
        for parent, _, files in os.walk(folder):
            for file in files:
                path = Path(parent) / file
                name = path.relative_to(self.root).as_posix()
                if name.startswith(prefix):
                    try:
                        found[name] = path.stat().st_size
                    except FileNotFoundError:
                        continue  # a temporary file of another process
        return dict(sorted(found.items()))

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return (self.root / name).read_bytes()

    def fetch(self, name: str, path: Path) -> None:
        """See `Store`."""
        shutil.copyfile(self.root / name, path)

    def ranges(self) -> FolderReader:
        """See `Store`."""
        return FolderReader(self.root)

    def put(self, name: str, content: bytes) -> None:
        """See `Store`."""
        write_bytes(self.root / name, content)

    def put_file(self, name: str, path: Path) -> None:
        """See `Store`."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        sync(path)
        path.chmod(0o644)
        path.replace(target)
        sync(target.parent)

    def put_first(self, name: str, content: bytes) -> bool:
        """See `Store`."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.scratch() as folder:
            path = Path(folder) / "file"
            path.write_bytes(content)
            sync(path)
            path.chmod(0o644)
            try:
                os.link(path, target)
            except FileExistsError:
                return False
        sync(target.parent)
        return True

    def swap(self, name: str, content: bytes, before: bytes | None) -> None:
        """See `Store`."""
        self.root.mkdir(parents=True, exist_ok=True)
        with _locked(self.root):
            path = self.root / name
            now = path.read_bytes() if path.is_file() else None
            if now != before:
                raise Conflict(f"{path}: another build has published in the meantime; run the same command again")
            with self.scratch() as folder:  # a killed writer leaves nothing beside the data set
                temporary = Path(folder) / "file"
                temporary.write_bytes(content)
                self.put_file(name, temporary)

    def delete(self, name: str) -> None:
        """See `Store`."""
        path = self.root / name
        path.unlink(missing_ok=True)
        for parent in path.parents:  # folders exist only to hold files, as on S3
            if parent == self.root:
                break
            try:
                parent.rmdir()
            except OSError:  # not empty, or gone already
                break

    def clear(self, folder: str) -> None:
        """See `Store`."""
        shutil.rmtree(self.root / folder, ignore_errors=True)

    def scratch(self) -> TemporaryDirectory[str]:
        """See `Store`. Left-overs of killed processes stay in `.staging/tmp` until `gc`, or the end of a build."""
        folder = self.root / STAGING / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(prefix=f"{os.getpid()}-{secrets.token_hex(4)}-", dir=folder)


class FolderReader:
    """See `RangeReader`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, name: str, offset: int, size: int) -> bytes:
        """See `RangeReader`."""
        if name not in self._open:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(self._root / name, os.O_RDONLY)
        self._open.move_to_end(name)
        content = os.pread(self._open[name], size, offset)
        if len(content) != size:
            raise OSError(f"{self._root / name}: ends before byte {offset + size}")
        return content

    def close(self) -> None:
        """See `RangeReader`."""
        while self._open:
            os.close(self._open.popitem()[1])


@contextmanager
def scratch_file(store: Store) -> Iterator[Path]:
    """A path to write to before `put_file`; removed afterwards if it was not moved."""
    with store.scratch() as folder:
        yield Path(folder) / "file"


def publish_file(store: Store, path: Path, name: str) -> tuple[str, str, int]:
    """Move a file to a name that holds its hash: `name` with `{}` for 12 hex digits.

    Returns:
        Name, sha256, and size in bytes.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    target = name.format(digest[:12])
    store.put_file(target, path)
    return target, digest, size


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
