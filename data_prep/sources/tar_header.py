"""Headers of tar archives, parsed strictly: ustar, GNU and pax, with long names; whatever is not sound is an error.

A stream is walked forwards by its headers alone. Contents are passed over unless the caller reads them, so an index of
a local archive costs one block per member, whatever the members' sizes. Formats: POSIX.1-2001 `pax`, and `tar(5)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

BLOCK = 512  # bytes; headers and contents start at multiples of it
MAX_HEADER = 2**20  # bytes of a long name or of extended attributes
MAX_SIZE = 2**43  # bytes of a file; a file system refuses to seek much further

_FILES = frozenset(b"0\x007")
_EMPTY = frozenset(b"123456")  # links, devices, folders, pipes: no content follows, whatever their size says
_ATTRIBUTES = frozenset(b"xX")  # of the next file; X is what Solaris calls it
_SPARSE = "sparse files are not read; unpack the archive and pack it again without --sparse"


class TarDamage(ValueError):
    """The archive is not sound from some place on."""


class Seekable(Protocol):
    """What is needed of a stream."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...

    def tell(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Header:
    """One block of an archive, before what other blocks say of its name and size."""

    name: str  # bytes that are no UTF-8 as surrogates
    size: int  # bytes
    type: int  # the type flag's byte


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in an archive; positions count from where reading began."""

    name: str
    size: int  # bytes
    offset: int  # of its (first) header
    start: int  # of its content


def parse_header(block: bytes, position: int = 0) -> Header:
    """Read one header.

    Args:
        block: 512 bytes.
        position: of the block, for messages.

    Raises:
        TarDamage: cut off, a wrong checksum, or a number that is none.
    """
    if len(block) < BLOCK:
        raise TarDamage(f"the archive is cut off in a header, at byte {position + len(block)}")
    stated = _number(block[148:156], position)
    around = block[:148] + block[156:]
    if sum(around) + 256 != stated:  # the field itself counts as eight spaces
        signed = sum(byte - 256 if byte > 127 else byte for byte in around)  # as some old writers add
        if signed + 256 != stated:
            raise TarDamage(f"no tar header at byte {position}: wrong checksum")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:  # GNU keeps other things there
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    flag = block[156]
    if flag == 0 and name.endswith(b"/"):  # how the oldest format writes folders
        flag = ord("5")
    return Header(name.decode("utf-8", "surrogateescape"), _number(block[124:136], position), flag)


def entries(stream: Seekable) -> Iterator[Entry]:
    """The files of an archive in order; those of archives put behind each other, too.

    While an entry is looked at, the stream stands at its content and may be read and moved at will.

    Args:
        stream: stands at a header.

    Raises:
        TarDamage: a header is broken, a file is sparse, or the archive ends without its end mark.
    """
    base = stream.tell()
    position, begin, ended, last = 0, 0, False, ""
    path: str | None = None  # what headers in front say of the next file
    length: int | None = None
    while block := stream.read(BLOCK):
        if not block.strip(b"\0") and len(block) == BLOCK:
            ended, position, begin = True, position + BLOCK, position + BLOCK
            continue
        header = parse_header(block, position)
        position, ended = position + BLOCK, False
        flag, size = header.type, header.size
        if flag in _ATTRIBUTES or flag in b"gLK":
            padded = _padded(min(size, MAX_SIZE))
            if flag != ord("g"):  # what holds for all files is of no use here
                content = _read(stream, size, padded, position)
                if flag in _ATTRIBUTES:
                    found = parse_attributes(content)
                    if any(key.startswith("GNU.sparse.") for key in found):
                        raise TarDamage(f"{found.get('GNU.sparse.name', header.name)!r}: {_SPARSE}")
                    path = found.get("path", path)
                    length = _decimal(found["size"]) if "size" in found else length
                elif flag == ord("L"):
                    path = content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            else:
                stream.seek(base + position + padded)
            position += padded
            continue
        name, size = path or header.name, size if length is None else length
        if size > MAX_SIZE:
            raise TarDamage(f"{name!r}: a size of {size} bytes, which no file has")
        if flag == ord("S"):
            raise TarDamage(f"{name!r}: {_SPARSE}")
        padded = 0 if flag in _EMPTY else _padded(size)
        if flag in _FILES:
            yield Entry(name, size, begin, position)
        stream.seek(base + position + padded)
        path, length = None, None
        position, begin, last = position + padded, position + padded, name
    if not ended:
        raise TarDamage(
            f"the archive is cut off: no end mark at byte {position}" + (f", in or after {last!r}" if last else "")
        )


def parse_attributes(content: bytes) -> dict[str, str]:
    """Extended attributes: lines `<length> <key>=<value>`.

    Raises:
        TarDamage: not such lines.
    """
    found, at = {}, 0
    while at < len(content):
        number, space, _ = content[at : at + 20].partition(b" ")
        end = at + int(number) if number.isdigit() else 0
        first = at + len(number) + 1
        if not space or not first < end <= len(content) or content[end - 1 : end] != b"\n":
            raise TarDamage("extended attributes that cannot be read")
        key, sign, value = content[first : end - 1].partition(b"=")
        if not sign:
            raise TarDamage("extended attributes that cannot be read")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        at = end
    return found


def _number(field: bytes, position: int) -> int:
    """A number in octal digits or, of those that are too large for that, in base 256."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise TarDamage(f"no tar header at byte {position}: a negative number")
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    digits = field.split(b"\0", 1)[0].strip(b" ")
    try:
        if digits and not digits.isdigit():
            raise ValueError
        return int(digits or b"0", 8)
    except ValueError:
        raise TarDamage(f"no tar header at byte {position}: {field!r} is no number") from None


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise TarDamage(f"extended attributes with the size {text[:20]!r}")
    return int(text)


def _read(stream: Seekable, size: int, padded: int, position: int) -> bytes:
    if size > MAX_HEADER:
        raise TarDamage(f"a header of {size} bytes at byte {position}")
    content = stream.read(padded)
    if len(content) < padded:
        raise TarDamage(f"the archive is cut off at byte {position + len(content)}")
    return content[:size]


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
