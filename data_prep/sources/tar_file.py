"""Tar files read strictly and forwards: whatever is not a sound archive up to its end is an error, never an end.

The standard library takes a broken header behind the first member for the end of the archive, so that a damaged file
would lose its samples silently; here it only parses single headers.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

BLOCK = 512  # bytes; headers and contents start at multiples of it
MAX_HEADER = 2**20  # bytes of a long name or of extended attributes
MAX_MEMBER = 256 * 2**20  # bytes; a larger member is not read into memory

_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class TarDamage(ValueError):
    """The archive is not sound from some place on."""


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
    position, begin, ended = 0, 0, False
    attributes: dict[str, str] = {}
    while header := stream.read(BLOCK):
        if len(header) == BLOCK and not header.strip(b"\0"):
            ended, position, begin = True, position + BLOCK, position + BLOCK
            continue
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise TarDamage(f"no tar header at byte {position}: {error}") from None
        position, ended = position + BLOCK, False
        name, size = attributes.get("path", info.name), int(attributes.get("size", info.size))
        padded = -(-size // BLOCK) * BLOCK
        if info.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            content = _read(stream, size, padded, position, MAX_HEADER)
            if info.type == tarfile.XHDTYPE:
                attributes = _attributes(content)
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                attributes = {**attributes, "path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
        elif info.type in _FILES:
            if size <= MAX_MEMBER and wanted(name):
                yield Member(name, size, begin, _read(stream, size, padded, position, MAX_MEMBER))
            else:
                stream.seek(padded, io.SEEK_CUR)
                yield Member(name, size, begin, None)
            attributes, begin = {}, position + padded
        elif info.type == tarfile.GNUTYPE_SPARSE:
            raise TarDamage(f"{name}: sparse files are not read")
        else:  # folders and links hold nothing
            padded = 0
            attributes, begin = {}, position
        position += padded
    if not ended:
        raise TarDamage(f"the archive is cut off: no end mark at byte {position}")


def _read(stream: io.BufferedReader | gzip.GzipFile, size: int, padded: int, position: int, limit: int) -> bytes:
    if size > limit:
        raise TarDamage(f"a header of {size} bytes at byte {position}")
    content = stream.read(padded)
    if len(content) < padded:
        raise TarDamage(f"the archive is cut off at byte {position + len(content)}")
    return content[:size]


def _attributes(content: bytes) -> dict[str, str]:
    """Extended attributes: lines `<length> <key>=<value>`."""
    found, at = {}, 0
    while at < len(content):
        length, _, _ = content[at : at + 20].partition(b" ")
        if not length.isdigit() or not int(length):
            raise TarDamage("extended attributes that cannot be read")
        key, _, value = content[at + len(length) + 1 : at + int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at += int(length)
    return found
