"""Shards on a machine: hashed once at first use, and copies of remote ones in a cache of bounded size.

Several processes share one folder. A copy is named by its content; what was used longest ago makes room for the next,
and whoever has it open goes on reading it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path
from socket import gethostname

from pydantic import Field

from dreamline import storage
from dreamline.config import Config, ConfigError, digest
from dreamline.data.index import SampleIndex, Shard, default_cache, lock

BLOCK = 4 * 2**20  # bytes read at a time
GIB = 2**30
MAX_OPEN = 128  # shards that a reader holds open
MAX_COPIES = 16  # the same for copies: an open one takes up room after it had to make way


class CacheConfig(Config):
    """Where a machine keeps copies of remote shards."""

    folder: Path = Field(default_factory=default_cache, description="a folder on a local disk, shared by all processes")
    size: int = Field(64 * GIB, ge=1, description="bytes; three windows of shards have to fit")


class LocalShards:
    """The shards of a data set as local files.

    Args:
        cache: its folder keeps marks of what was hashed; copies of remote shards too, up to its size.
        verify: hash a shard before its first use on this machine; a mark stands for machine, path, size, time and
            hash, as machines may share a home but not their disks.
    """

    def __init__(self, index: SampleIndex, cache: CacheConfig, verify: bool) -> None:
        self.index, self.cache, self.verify = index, cache, verify
        self.remote = storage.is_remote(index.folder)
        self.max_open = MAX_COPIES if self.remote else MAX_OPEN
        self._seen: dict[int, tuple[int, int]] = {}  # size and time of shards that were found whole, by number

    def open(self, number: int) -> int:
        """Descriptor of a shard's file; the caller closes it.

        Raises:
            ConfigError: it is missing, or not what the index lists.
        """
        shard = self.index.shards[number]
        while True:
            path = self._copy(shard) if self.remote else Path(self.index.folder) / shard.name
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                if self.remote:  # made room for another one meanwhile
                    continue
                raise ConfigError(f"{path}: missing; {self.index.cure}") from None
            try:
                self._check(number, path, descriptor)
            except BaseException:
                os.close(descriptor)
                if self.remote:
                    path.unlink(missing_ok=True)  # it is fetched again next time
                raise
            return descriptor

    def _check(self, number: int, path: Path, descriptor: int) -> None:
        shard, found = self.index.shards[number], os.fstat(descriptor)
        if self._seen.get(number) == (found.st_size, found.st_mtime_ns):
            return
        if found.st_size != shard.size:
            raise ConfigError(f"{path}: is {found.st_size} bytes long, not {shard.size}; {self.index.cure}")
        if self.verify and shard.hashed:
            self._verify(shard, path, descriptor)
        self._seen[number] = (found.st_size, found.st_mtime_ns)

    def _verify(self, shard: Shard, path: Path, descriptor: int) -> None:
        """Hash a file, unless that was done on this machine."""
        found = os.fstat(descriptor)
        name = digest([gethostname(), str(path.resolve()), found.st_size, found.st_mtime_ns, shard.sha256])
        mark = self.cache.folder / "verified" / name
        if mark.exists():
            return
        with lock(self.cache.folder / "locks" / name):
            if not mark.exists():
                with open(descriptor, "rb", closefd=False) as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                if sha256 != shard.sha256:
                    raise ConfigError(
                        f"{path}: is damaged (sha256 {sha256[:12]}, not {shard.sha256[:12]}); {self.index.cure}"
                    )
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()

    def _copy(self, shard: Shard) -> Path:
        """The local copy of a remote shard."""
        name = hashlib.sha256(shard.sha256.encode()).hexdigest()  # whatever somebody may have written there
        path = self.cache.folder / "shards" / f"{name}.tar"
        if not _touch(path):
            with lock(self._lock_of(path)):
                if not _touch(path):
                    self._download(shard, path)
        return path

    def _download(self, shard: Shard, path: Path) -> None:
        url = storage.join(self.index.folder, shard.name)
        temporary = path.with_name(f".{path.name}")  # who has the lock is alone in filling it
        self._make_room(shard, temporary)
        try:
            with storage.open_read(url, BLOCK) as source, temporary.open("r+b") as target:
                while block := source.read(BLOCK):
                    target.write(block)
                target.truncate()  # it was as long as the index says
            with lock(self.cache.folder / "locks" / "room"):
                temporary.replace(path)
        except FileNotFoundError:
            raise ConfigError(f"{url}: missing; {self.index.cure}") from None
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, shard: Shard, reserved: Path) -> None:
        """Remove what was used longest ago until a shard fits; a file of its size holds the place."""
        if shard.size > self.cache.size:
            raise ConfigError(f"cache.size is {self.cache.size} bytes, {shard.name} has {shard.size}; raise it")
        reserved.parent.mkdir(parents=True, exist_ok=True)
        with lock(self.cache.folder / "locks" / "room"):
            found = {path: entry for path in reserved.parent.iterdir() if path != reserved and (entry := _stat(path))}
            total = sum(entry.st_size for entry in found.values())
            for path in sorted(found, key=lambda path: found[path].st_atime_ns):
                if total + shard.size <= self.cache.size:
                    break
                if not path.name.startswith(".") or not _is_held(self._lock_of(path)):
                    path.unlink(missing_ok=True)
                    total -= found[path].st_size
            with reserved.open("wb") as file:
                file.truncate(shard.size)

    def _lock_of(self, path: Path) -> Path:
        """What whoever fills a copy holds; of its temporary file the same."""
        return self.cache.folder / "locks" / path.stem.removeprefix(".")


def _touch(path: Path) -> bool:
    """Note a use, by the time of access alone; whether the file is there."""
    try:
        found = path.stat()
        os.utime(path, ns=(max(found.st_atime_ns + 1, time.time_ns()), found.st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def _stat(path: Path) -> os.stat_result | None:
    """What is known of a file; None if it has just been removed."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock. Unlike a process number that holds in containers, too."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
