"""Files: atomic publish, hashes and links on a local path."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
