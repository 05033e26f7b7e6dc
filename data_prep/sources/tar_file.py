"""Tar files read strictly and forwards: whatever is not a sound archive up to its end is an error, never an end.

The standard library takes a broken header behind the first member for the end of the archive, so that a damaged file
would lose its samples silently.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data_prep.sources.tar_header import TarDamage, entries

MAX_MEMBER = 256 * 2**20  # bytes; a larger member is not read into memory


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    size: int  # bytes
    offset: int  # of its (first) header, from where reading began
    content: bytes | None  # None where nobody wants it, or it is too large


def members(stream: io.BufferedReader | gzip.GzipFile, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """The files of an archive in order.

    Args:
        stream: stands at a header.
        wanted: whether to read the content of a file of this name.

    Raises:
        TarDamage: a header is broken, or the archive ends without its end mark.
    """
    for entry in entries(stream):
        content = None
        if entry.size <= MAX_MEMBER and wanted(entry.name):
            content = stream.read(entry.size)
            if len(content) < entry.size:
                raise TarDamage(f"the archive is cut off at byte {entry.start + len(content)}")
        yield Member(entry.name, entry.size, entry.offset, content)
