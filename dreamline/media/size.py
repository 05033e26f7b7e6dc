"""Width and height of a picture from the first bytes of its file: quick, for indexes; nothing is judged."""

from __future__ import annotations

import struct

from dreamline.media.config import DecodeConfig
from dreamline.media.errors import MediaError
from dreamline.media.header import FRAME_MARKERS, exif_orientation, read_header, sniff, webp_canvas

FIRST = 4096  # bytes that are enough for most files
LARGEST = 2**31 - 1  # px; beyond it no PNG may be
_LENIENT = DecodeConfig(animated="first", max_bytes=2**40, max_pixels=178_956_970, max_aspect=1e9)


def read_size(content: bytes, whole: bool = True) -> tuple[int, int] | None:
    """(width, height) in pixels, upright, of a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file.

    An orientation is known of JPEG, where it stands in front of the picture, and of TIFF and AVIF.

    Args:
        content: the file, or as much of its start as there is.
        whole: that it is the whole file.

    Returns:
        None where a longer start is needed. With `whole` never.

    Raises:
        MediaError: of no known format, or its header cannot be parsed.
    """
    kind = sniff(content)
    size: tuple[int, int] | None
    if kind == "PNG":
        size = struct.unpack_from(">II", content, 16) if len(content) >= 24 else None
    elif kind == "WEBP":
        size = webp_canvas(content) if len(content) >= 30 else None
    elif kind == "GIF":
        size = struct.unpack_from("<HH", content, 6) if len(content) >= 10 else None
    elif kind == "JPEG":
        size = _jpeg_size(content)
    elif kind is None and (whole or len(content) >= 64):
        raise MediaError("format", f"unknown, starts with {content[:12]!r}")
    else:
        size = _by_library(content) if whole else None
    if size is None:
        if whole:
            raise MediaError("truncated", f"{len(content)} bytes, and no size among them")
        return None
    if min(size) < 1 or max(size) > LARGEST:
        raise MediaError("unreadable", f"{size[0]} x {size[1]} pixels")
    return size


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Walk to the frame's header; None if it is not among these bytes."""
    at, orientation = 2, 1
    while at + 9 <= len(content):
        if content[at] != 0xFF:
            raise MediaError("corrupt", f"{content[at : at + 2]!r} where a marker belongs, at byte {at}")
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return (height, width) if orientation >= 5 else (width, height)
        elif marker in (0xD9, 0xDA):
            raise MediaError("unreadable", "a scan, or the end, in front of the frame's header")
        else:
            length = max(2, int.from_bytes(content[at + 2 : at + 4], "big"))
            if marker == 0xE1 and content[at + 4 : at + 10] == b"Exif\0\0":
                if at + 2 + length > len(content):
                    return None
                orientation = exif_orientation(content[at + 4 : at + 2 + length])
            at += 2 + length
    return None


def _by_library(content: bytes) -> tuple[int, int]:
    header = read_header(content, _LENIENT)
    return header.width, header.height
