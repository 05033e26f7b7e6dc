"""Files: atomic publish, hashes and links on a local path; reading, listing and writing on a path or `s3://bucket/key`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dreamline import storage_s3

_GLOB = re.compile(r"[*?\[]")


def write_text(path: str | Path, text: str, durable: bool = True) -> None:
    """Replace a small file atomically; a reader sees the old or the new content, never a part."""
    write_bytes(path, text.encode(), durable)


def write_json(path: str | Path, value: Any) -> None:
    """Replace a JSON file atomically (sorted keys, so equal values give equal bytes)."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def write_bytes(path: str | Path, content: bytes, durable: bool = True) -> None:
    """Replace a file atomically. `durable=False` skips fsync, for files that are only a view."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(target)


@contextmanager
def publish_folder(path: str | Path) -> Iterator[Path]:
    """Fill a folder under a temporary name and move it into place as a whole.

    Yields the temporary folder. On an error it is removed and `path` stays as it was. A folder that is there already is
    replaced. Left-overs of killed writers (`.<name>.tmp-*`) are swept first.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file() and file.stat().st_nlink == 1:  # linked files are published already
                file.chmod(0o644)  # some libraries write files that only their owner can read
                sync(file)
        if target.exists():
            old = target.with_name(f".{target.name}.tmp-old-{os.getpid()}")
            target.rename(old)
            temporary.rename(target)
            shutil.rmtree(old)
        else:
            temporary.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sync(path: Path) -> None:
    """fsync one file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_tree(source: str | Path, target: str | Path) -> None:
    """Repeat a folder with hard links, or with copies where the file systems differ."""
    for file in sorted(Path(source).rglob("*")):
        if file.is_file():
            place = Path(target) / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:
                shutil.copy2(file, place)


def sha256(path: str | Path) -> str:
    """Hex sha256 of one file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(path: str | Path) -> dict[str, str]:
    """sha256 of every file below a folder, by relative path, sorted."""
    root = Path(path)
    return {str(file.relative_to(root)): sha256(file) for file in sorted(root.rglob("*")) if file.is_file()}


@dataclass(frozen=True)
class FileEntry:
    """A file as a listing shows it."""

    path: str  # local path or s3:// URL
    name: str  # the path below what was listed; of a single file its own name
    size: int  # bytes
    version: str  # changes with the content: the entity tag, or size and time of a local file


def is_remote(path: str | Path) -> bool:
    """Whether a location is on S3. Anything else is a local path."""
    return str(path).startswith(storage_s3.SCHEME)


def join(folder: str, name: str) -> str:
    """Path or URL of a name below a folder."""
    return f"{folder.rstrip('/')}/{name}"


def stat_file(path: str | Path) -> FileEntry:
    """One file.

    Raises:
        FileNotFoundError: there is none.
    """
    name = str(path).rpartition("/")[2]
    if is_remote(path):
        size, etag = storage_s3.head(str(path))
        return FileEntry(str(path), name, size, etag)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    return _local_entry(str(path), name)


def list_files(location: str | Path) -> list[FileEntry]:
    """All files of a location, sorted by path: a file, everything below a folder or prefix, or what a glob matches.

    In a glob `*`, `?` and `[...]` stay within one folder and `**` does not; what exists by exactly that name is no
    glob. Names that begin with a dot are left out, as writers keep unfinished files under them. Empty if nothing is
    there.
    """
    text = str(location)
    try:
        return [stat_file(text)]
    except FileNotFoundError:
        pass
    wild = None if not is_remote(text) and os.path.isdir(text) else _GLOB.search(text)
    folder = (text[: wild.start()].rpartition("/")[0] if wild else text.rstrip("/")) + "/"
    if wild and "/" not in text[: wild.start()]:
        folder = ""
    pattern = text[len(folder) :].split("/") if wild else ["**"]
    entries = _below_remote(folder) if is_remote(text) else _below_local(folder)
    return sorted(
        (entry for entry in entries if _matches(entry.name.split("/"), pattern)), key=lambda entry: entry.path
    )


def open_read(path: str | Path, buffer_size: int = storage_s3.READ_SIZE) -> io.BufferedReader:
    """A file to read from, seekable; on S3 all of one version, in requests of `buffer_size` bytes.

    Raises:
        OSError: it is missing (FileNotFoundError), or cannot be read.
    """
    if is_remote(path):
        return storage_s3.open_read(str(path), buffer_size)
    return open(path, "rb")


def read_bytes(path: str | Path) -> bytes:
    """A whole file."""
    with open_read(path) as file:
        return file.read()


def read_range(path: str | Path, offset: int, size: int) -> bytes:
    """Bytes offset..offset+size-1, fewer at the end of the file."""
    if is_remote(path):
        return storage_s3.read_range(str(path), offset, size)
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def put(path: str | Path, content: bytes | Path, if_absent: bool = False) -> bool:
    """Write a file, from bytes or from another local file. A reader sees the old or the new content, never a part.

    Args:
        if_absent: do not replace anything. What is there already must have the same content, so several writers may
            publish one content-named file.

    Returns:
        Whether it was written: False if the same content is there already.

    Raises:
        FileExistsError: `if_absent`, and other content is there.
    """
    if is_remote(path):
        return storage_s3.put(str(path), content, if_absent)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        if isinstance(content, Path):
            shutil.copyfile(content, temporary)
        else:
            temporary.write_bytes(content)
        sync(temporary)
        if not if_absent:
            temporary.replace(target)
        else:
            try:
                os.link(temporary, target)
            except FileExistsError:
                if sha256(target) != sha256(temporary):
                    raise FileExistsError(f"{path}: is there already with other content, and is not replaced") from None
                return False
    finally:
        temporary.unlink(missing_ok=True)
    sync(target.parent)
    return True


def get_file(path: str | Path, local: str | Path) -> None:
    """Copy a file to a local path, where it appears as a whole."""
    if is_remote(path):
        storage_s3.get_file(str(path), Path(local))
    else:
        put(local, Path(path))


def delete(path: str | Path) -> None:
    """Remove a file; nothing happens if there is none."""
    if is_remote(path):
        storage_s3.delete(str(path))
    else:
        Path(path).unlink(missing_ok=True)


def _local_entry(path: str, name: str) -> FileEntry:
    found = os.stat(path)
    return FileEntry(path, name, found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def _below_local(folder: str) -> Iterator[FileEntry]:
    """Every file below a folder, through links too, each folder once; "" is the working directory."""
    seen = set()
    for parent, folders, names in os.walk(folder or ".", followlinks=True):
        identity = os.stat(parent).st_dev, os.stat(parent).st_ino
        folders[:] = [] if identity in seen else [name for name in folders if not name.startswith(".")]
        for name in names if identity not in seen else ():
            path = os.path.join(parent, name) if folder else os.path.relpath(os.path.join(parent, name))
            if not name.startswith(".") and os.path.isfile(path):
                yield _local_entry(path, path[len(folder) :])
        seen.add(identity)


def _below_remote(folder: str) -> Iterator[FileEntry]:
    for url, size, etag in storage_s3.list_prefix(folder):
        name = url[len(folder) :]
        if name and not name.endswith("/") and not any(part.startswith(".") for part in name.split("/")):
            yield FileEntry(url, name, size, etag)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path fits a glob, both split at slashes; `**` stands for any number of parts."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:]
        return not rest or any(_matches(parts[start:], rest) for start in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
