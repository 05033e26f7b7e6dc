"""What a file says of its picture, read and judged before any pixel is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import AvifImagePlugin, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dreamline.media.config import DecodeConfig
from dreamline.media.errors import MediaError, refusing

LONGEST_SIDE = 65_500  # of a JPEG
MAX_TIFF_VALUES = 2**17  # per tag: strip offsets become Python integers, 20 times their size in the file
MAX_BLOCKS = 2**16  # segments of a JPEG's header, chunks of a PNG; usual files have some ten, large PNG some thousands
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE_MARKERS = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xDA)))  # no length follows
_TIFF_BYTE_TYPES = (1, 2, 6, 7)  # these stay bytes

# One class per format and never Image.open: no other plug-in (EPS starts Ghostscript) ever sees the bytes.
_READERS: Mapping[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "AVIF": AvifImageFile,
}
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # workers are processes; more threads than that only disturb each other


@dataclass(frozen=True)
class Header:
    """Facts from the header; sizes in pixels."""

    format: str  # JPEG, PNG, WEBP, GIF, BMP, TIFF or AVIF, by content
    width: int  # upright, after orientation
    height: int
    mode: str  # Pillow's: L, RGB, CMYK, I;16, P, ...
    bits: int  # per sample: 8 or 16 (1-bit pictures are read as 8)
    alpha: bool  # an alpha channel, or a transparent colour
    frames: int  # of an animation or of pages; 2 where the format only says that there are more
    orientation: int  # EXIF, 1 to 8; 1 where the file does not say or the reader applies it by itself (TIFF)
    icc: bytes | None = field(repr=False)  # embedded colour profile

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) of the stored pixels, before orientation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(content: bytes, config: DecodeConfig) -> Header:
    """Read the header and judge it.

    Raises:
        MediaError: whatever `config` or the format forbids.
    """
    return open_image(content, config)[1]


def open_image(content: bytes, config: DecodeConfig) -> tuple[ImageFile.ImageFile, Header]:
    """Pillow's lazy picture, nothing decoded yet, and its judged header.

    Raises:
        MediaError: whatever `config` or the format forbids.
    """
    if not content:
        raise MediaError("empty", "0 bytes")
    if len(content) > config.max_bytes:
        raise MediaError("too_many_bytes", f"{len(content)} bytes, more than {config.max_bytes}")
    kind = sniff(content)
    if kind is None or kind not in config.formats:
        raise MediaError("format", f"{kind or 'unknown'}, starts with {content[:12]!r}")
    if kind == "WEBP":
        _judge_size(*_webp_size(content), config)  # its reader reserves the canvas on opening
    elif kind == "JPEG":
        _judge_jpeg(content, config)
    elif kind == "PNG":
        _judge_png(content)
    elif kind == "TIFF":
        _judge_tiff(content)
    with refusing("unreadable"):
        image = _READERS[kind](io.BytesIO(content))
    _judge_size(*image.size, config)
    with refusing("unreadable"):
        frames = _count_frames(image, kind)
        alpha = bool(image.has_transparency_data)
        icc = image.info.get("icc_profile")
        tiff_bits = _tiff_bits(image)
    if frames > 1 and config.animated == "reject":
        raise MediaError("animated", f"{kind} with {frames} or more frames")
    orientation = 1 if kind == "TIFF" else exif_orientation(image.info.get("exif"))
    width, height = image.size[::-1] if orientation >= 5 else image.size
    deep = image.mode.startswith("I;16") or (kind == "PNG" and content[24:25] == b"\x10") or tiff_bits > 8
    bits = 16 if deep else 8
    icc = icc if isinstance(icc, bytes) and icc else None
    return image, Header(kind, width, height, image.mode, bits, alpha, frames, orientation, icc)


def sniff(content: bytes) -> str | None:
    """Format by the first bytes; None for anything unknown."""
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if content.startswith(b"BM"):
        return "BMP"
    if content.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if content[4:8] == b"ftyp" and (content[8:12] in (b"avif", b"avis") or b"avif" in content[12:64]):
        return "AVIF"
    return None


def check_png_data(content: bytes) -> None:
    """Compare the checksums of a PNG's data, which Pillow does not: half of a file may be lost unnoticed.

    Raises:
        MediaError: `truncated` or `corrupt`.
    """
    view, at = memoryview(content), 8
    while at + 12 <= len(content):
        length, name = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 8 + length
        if end + 4 > len(content):
            raise MediaError("truncated", f"chunk {name!r} ends behind the file")
        if name == b"IDAT" and zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise MediaError("corrupt", f"wrong checksum of the data at byte {at}")
        if name == b"IEND":
            return
        at = end + 4


def exif_orientation(exif: object) -> int:
    """Orientation (1 to 8) from a block of EXIF; 1 where there is none or it makes no sense."""
    if not isinstance(exif, bytes):
        return 1
    for tag, kind, count, value, order in _first_directory(exif.removeprefix(b"Exif\0\0")):
        if tag == 0x0112 and kind == 3 and count == 1:
            (found,) = struct.unpack_from(f"{order}H", value)
            return found if 1 <= found <= 8 else 1
    return 1


def _first_directory(tiff: bytes) -> list[tuple[int, int, int, bytes, str]]:
    """(tag, type, count, value or offset, sign of the byte order) of each entry of a TIFF's first directory."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return []
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return []
    (number,) = struct.unpack_from(f"{order}H", tiff, start)
    fits = (len(tiff) - start - 2) // 12
    entries = (struct.unpack_from(f"{order}HHI4s", tiff, start + 2 + 12 * i) for i in range(min(number, fits)))
    return [(tag, kind, count, value, order) for tag, kind, count, value in entries]


def _judge_tiff(content: bytes) -> None:
    for tag, kind, count, _, _ in _first_directory(content):
        if kind not in _TIFF_BYTE_TYPES and count > MAX_TIFF_VALUES:
            raise MediaError("metadata", f"TIFF tag {tag} has {count} values, more than {MAX_TIFF_VALUES}")


def _judge_size(width: int, height: int, config: DecodeConfig) -> None:
    if min(width, height) < 1:
        raise MediaError("unreadable", f"{width} x {height} pixels")
    if width * height > config.max_pixels:
        raise MediaError("too_many_pixels", f"{width} x {height}, more than {config.max_pixels}")
    if max(width, height) > LONGEST_SIDE:
        raise MediaError("too_many_pixels", f"{width} x {height}, a side longer than {LONGEST_SIDE}")
    if min(width, height) < config.min_side:
        raise MediaError("too_small", f"{width} x {height}, shorter side under {config.min_side}")
    if max(width, height) > config.max_aspect * min(width, height):
        raise MediaError("aspect", f"{width} x {height}, more than {config.max_aspect} to 1")


def _judge_jpeg(content: bytes, config: DecodeConfig) -> None:
    """Walk to the first scan; Pillow would do it byte by byte through whatever it is given.

    Each scan of a few bytes costs a pass over the whole picture: thousands of them would take hours.
    """
    at, components, progressive = 2, 0, False
    for _ in range(MAX_BLOCKS):
        marker, length = content[at : at + 2], int.from_bytes(content[at + 2 : at + 4], "big")
        if len(marker) < 2:
            raise MediaError("truncated", "no picture behind the header")
        if marker[0] != 0xFF:
            raise MediaError("corrupt", f"{marker!r} where a marker belongs, at byte {at}")
        if marker[1] == 0xFF:  # a fill byte
            at += 1
            continue
        if marker[1] in FRAME_MARKERS:
            components = content[at + 9] if at + 9 < len(content) else 0
            progressive = marker[1] in _PROGRESSIVE_MARKERS
        if marker[1] == 0xDA:
            # A sequential file whose first scan holds all components has no other: the decoder refuses a second one.
            if not (components and not progressive and content[at + 4 : at + 5] == bytes([components])):
                _judge_scans(content, config)
            return
        at += 2 + (0 if marker[1] in _BARE_MARKERS else max(length, 2))
    raise MediaError("metadata", f"more than {MAX_BLOCKS} segments before the picture")


def _judge_scans(content: bytes, config: DecodeConfig) -> None:
    scans = content.count(b"\xff\xda")
    if scans > config.max_scans:
        raise MediaError("too_many_scans", f"{scans} scans, more than {config.max_scans}")


def _judge_png(content: bytes) -> None:
    """Count the chunks, which Pillow handles one by one."""
    at = 8
    for _ in range(MAX_BLOCKS):
        if at + 12 > len(content):
            return
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    raise MediaError("metadata", f"more than {MAX_BLOCKS} chunks")


def _webp_size(content: bytes) -> tuple[int, int]:
    """(width, height) of the canvas, from the first chunk."""
    if len(content) < 30 or int.from_bytes(content[4:8], "little") + 8 > len(content):
        raise MediaError("truncated", f"WebP of {len(content)} bytes that announces more")
    return webp_canvas(content)


def webp_canvas(content: bytes) -> tuple[int, int]:
    """The same from the first 30 bytes of a file."""
    first, body = content[12:16], content[20:30]
    if first == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if first == b"VP8L":
        packed = int.from_bytes(body[1:5], "little")
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    if first == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    raise MediaError("unreadable", f"WebP that starts with a {first!r} chunk")


def _count_frames(image: ImageFile.ImageFile, kind: str) -> int:
    """Frames as the header tells them; GIF and TIFF would have to be walked through, so they count as 1 or 2."""
    if kind == "JPEG":
        return 1  # other pictures behind the first are thumbnails, gain maps and second eyes
    if kind in ("GIF", "TIFF"):
        return 2 if getattr(image, "is_animated", False) else 1
    return int(getattr(image, "n_frames", 1))


def _tiff_bits(image: ImageFile.ImageFile) -> int:
    bits = image.tag_v2.get(258, 8) if isinstance(image, TiffImageFile) else 8
    return max(bits) if isinstance(bits, tuple) and bits else bits if isinstance(bits, int) else 8
