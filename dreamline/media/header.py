"""What a file says of its picture, read and judged before any pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field

from dreamline.media.config import DecodeConfig


@dataclass(frozen=True)
class Header:
    """Facts from the header; sizes in pixels."""

    format: str  # JPEG, PNG, WEBP, GIF, BMP, TIFF or AVIF, by content
    width: int  # upright, after orientation
    height: int
    mode: str  # Pillow's: L, RGB, CMYK, I;16, P, ...
    bits: int  # per sample: 8 or 16
    alpha: bool  # an alpha channel, or a transparent colour
    frames: int  # of an animation or of pages
    orientation: int  # EXIF, 1 to 8; 1 where it does not say or where the decoder applies it by itself
    icc: bytes | None = field(repr=False)  # embedded colour profile


def read_header(content: bytes, config: DecodeConfig) -> Header:
    """Read the header and judge it.

    Raises:
        MediaError: whatever `config` or the format forbids.
    """
    raise NotImplementedError
