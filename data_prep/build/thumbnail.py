"""Small pictures for the report."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 128  # px, longer side

Pixels = NDArray[np.uint8]


def thumbnail(image: Pixels, source: Pixels | None = None) -> bytes:
    """JPEG of a picture [H, W, 3], of an edit with its source to the left; longer sides `SIDE` px."""
    pictures = [_small(picture) for picture in (source, image) if picture is not None]
    height = min(picture.shape[0] for picture in pictures)
    joined = np.concatenate([picture[:height] for picture in pictures], axis=1)
    ok, content = cv2.imencode(".jpg", cv2.cvtColor(joined, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not ok:
        raise ValueError(f"a picture of shape {image.shape} cannot be a JPEG")
    return bytes(content.tobytes())


def _small(pixels: Pixels) -> Pixels:
    factor = min(1.0, SIDE / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA), np.uint8)
