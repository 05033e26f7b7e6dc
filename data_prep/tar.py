"""Plain USTAR archives with nothing in them that varies: equal members give equal bytes, and every offset is known."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping
from typing import Any, BinaryIO

BLOCK = 512  # bytes; headers and contents start at multiples of it
RECORD = 10_240  # bytes; an archive is a multiple of it long
MAX_NAME = 100  # bytes of a member's name in a header without extensions


class TarWriter:
    """Writes WebDataset records to a stream, one after the other.

    Attributes:
        position: bytes written so far.
        sha256: hash of them; its `hexdigest()` after `close()` is that of the file.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.position = 0
        self.sha256 = hashlib.sha256()

    def write(self, key: str, members: Mapping[str, bytes]) -> list[dict[str, Any]]:
        """Append one record, its members `<key>.<name>` in the order of their names.

        Returns:
            `name`, `offset`, `size` and `sha256` of each member, as the manifest lists them.

        Raises:
            ValueError: a name that is too long for a plain header.
        """
        placed = []
        for name in sorted(members):
            content, full = members[name], f"{key}.{name}"
            if len(full.encode()) > MAX_NAME:
                raise ValueError(f"sample {key}: the member name {full!r} is longer than {MAX_NAME} bytes")
            self._put(header(full, len(content)))
            placed.append(
                {
                    "name": name,
                    "offset": self.position,
                    "size": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            )
            self._put(content)
            self._put(bytes(-len(content) % BLOCK))
        return placed

    def close(self) -> None:
        """End the archive; the stream stays open."""
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-self.position % RECORD))

    def _put(self, content: bytes) -> None:
        self._stream.write(content)
        self.sha256.update(content)
        self.position += len(content)


def record_size(sizes: list[int]) -> int:
    """Bytes that a record takes in an archive, from the sizes of its members."""
    return sum(BLOCK + -(-size // BLOCK) * BLOCK for size in sizes)


def header(name: str, size: int) -> bytes:
    """The header block of a file that everybody may read, without owner and time."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
