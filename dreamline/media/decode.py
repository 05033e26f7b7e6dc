"""Bytes to upright sRGB pixels, header first; and pixels to the bytes that are stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dreamline.media.colour import is_srgb, plain_pixels, to_srgb
from dreamline.media.config import DecodeConfig
from dreamline.media.errors import MediaError, refusing
from dreamline.media.geometry import Fit, Geometry, scaled_to
from dreamline.media.header import Header, check_png_data, open_image
from dreamline.media.jpeg import FASTEST, Backend, encode_jpeg
from dreamline.media.resize import resize, upright

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True)
class Decoded:
    """A picture, upright, in sRGB, without alpha."""

    pixels: NDArray[np.uint8] = field(repr=False)  # [H, W, 3]
    header: Header  # of the original: size, format, frames, orientation, alpha, ...
    decoder: str  # simplejpeg, cv2 or pillow
    notes: tuple[str, ...] = ()  # what was put up with: icc_ignored, first_frame
    original: bytes | None = field(default=None, repr=False)  # the file itself where it already is what is wanted


@dataclass(frozen=True)
class Encoded:
    """The bytes to store."""

    content: bytes = field(repr=False)
    extension: str  # jpg, png or webp
    reencoded: bool  # False: the source's own bytes, metadata included


def decode(
    content: bytes,
    config: DecodeConfig,
    to: Geometry | Fit | None = None,
    header: Header | None = None,
    backend: Backend = FASTEST,
) -> Decoded:
    """Decode a picture, straight to a geometry where one is given.

    Args:
        content: the whole file.
        config: limits and rules.
        to: where the pixels go, or a rule that tells it from the upright size; None keeps the size.
        header: what `read_header` told of the same bytes with the same config; read here otherwise.
        backend: the library for JPEG.

    Raises:
        MediaError: every refusal, with its reason; content of whatever kind raises nothing else.
    """
    image = None
    if header is None or header.format != "JPEG":  # of the others the reader that was opened decodes, too
        image, header = open_image(content, config)
    whole = scaled_to(header.width, header.height)
    geometry = whole if to is None else to if isinstance(to, Geometry) else to(header.width, header.height)
    stored = header.stored_size
    scaled = geometry.scaled[::-1] if header.orientation >= 5 else geometry.scaled
    icc, ignored = header.icc, False
    if header.format == "JPEG" or image is None:
        decoder = backend.name
        pixels = backend.decode(content, stored, scaled, inks=header.mode == "CMYK")
    else:
        decoder = "pillow"
        if header.format == "PNG":
            check_png_data(content)
        with refusing("corrupt"):
            image.load()
            if image.size != stored:
                raise MediaError("corrupt", f"two sizes: {stored} and {image.size}")
            pixels, icc, ignored = plain_pixels(image, icc, config.background)
    del image
    with refusing("corrupt"):
        left, top, right, bottom = geometry.box
        pixels = upright(resize(pixels, scaled), header.orientation)[top:bottom, left:right]
        pixels, ignored_now = to_srgb(pixels, icc)
        pixels = np.ascontiguousarray(pixels)
    notes = ("icc_ignored",) * (ignored or ignored_now) + ("first_frame",) * (header.frames > 1)
    keep = geometry == whole and _is_plain(content, header, config)
    return Decoded(pixels, header, decoder, notes, content if keep else None)


def encode(decoded: Decoded, config: DecodeConfig) -> Encoded:
    """The original file where nothing had to change, else a JPEG without metadata."""
    if decoded.original is not None:
        return Encoded(decoded.original, EXTENSIONS[decoded.header.format], reencoded=False)
    return Encoded(encode_jpeg(decoded.pixels, config.quality), "jpg", reencoded=True)


def _is_plain(content: bytes, header: Header, config: DecodeConfig) -> bool:
    """Whether any reader sees in this file what we see: upright, sRGB, opaque, 8 bits, one picture, nothing behind."""
    if header.format not in config.keep or header.orientation != 1 or header.bits != 8 or header.frames != 1:
        return False
    if header.alpha or header.mode not in ("L", "RGB", "P") or not is_srgb(header.icc):
        return False
    if header.format == "JPEG":
        return content.endswith(b"\xff\xd9")
    if header.format == "PNG":
        return content[-8:-4] == b"IEND"
    return int.from_bytes(content[4:8], "little") + 8 == len(content)
