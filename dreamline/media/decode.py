"""Bytes to upright sRGB pixels, header first; and pixels to the bytes that are stored."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dreamline.media.config import DecodeConfig
from dreamline.media.geometry import Fit, Geometry
from dreamline.media.header import Header


@dataclass(frozen=True)
class Decoded:
    """A picture, upright, in sRGB, without alpha."""

    pixels: NDArray[np.uint8] = field(repr=False)  # [H, W, 3]
    header: Header  # of the original: size, format, frames, orientation, alpha, ...
    decoder: str  # simplejpeg, cv2 or pillow
    notes: tuple[str, ...] = ()  # what was put up with: icc_ignored, ...
    original: bytes | None = field(default=None, repr=False)  # the file itself where it already is what is wanted


@dataclass(frozen=True)
class Encoded:
    """The bytes to store."""

    content: bytes = field(repr=False)
    extension: str  # jpg, png or webp
    reencoded: bool  # False: the source's own bytes, metadata included


def decode(
    content: bytes, config: DecodeConfig, to: Geometry | Fit | None = None, header: Header | None = None
) -> Decoded:
    """Decode a picture, straight to a geometry where one is given.

    Args:
        content: the whole file.
        config: limits and rules.
        to: where the pixels go, or a rule that tells it from the upright size; None keeps the size.
        header: what `read_header` told of the same bytes with the same config; read here otherwise.

    Raises:
        MediaError: every refusal, with its reason; nothing else is raised for any content.
    """
    raise NotImplementedError


def encode(decoded: Decoded, config: DecodeConfig) -> Encoded:
    """The original file where nothing had to change, else a JPEG without metadata."""
    raise NotImplementedError
