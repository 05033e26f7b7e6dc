"""Small pictures for the report."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from dreamline.data.sample import MAGIC

SIDE = 128  # px, longer side

Pixels = NDArray[np.uint8]


def thumbnail(image: Pixels, source: Pixels | None = None, side: int = SIDE) -> bytes:
    """JPEG of a picture [H, W, 3], of an edit with its source to the left; longer sides at most `side` px."""
    pictures = [_small(picture, side) for picture in (source, image) if picture is not None]
    height = min(picture.shape[0] for picture in pictures)
    joined = np.concatenate([picture[:height] for picture in pictures], axis=1)
    ok, content = cv2.imencode(".jpg", cv2.cvtColor(joined, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    if not ok:
        raise ValueError(f"a picture of shape {image.shape} cannot be a JPEG")
    return bytes(content.tobytes())


def thumbnail_of(members: Mapping[str, bytes]) -> bytes | None:
    """The same from the members of a sample; None where its pictures cannot be read."""
    pictures = [_read(members, stem) for stem in ("source", "target", "")]
    found = [picture for picture in pictures if picture is not None]
    return thumbnail(found[-1], found[0] if len(found) > 1 else None) if found else None


def _read(members: Mapping[str, bytes], stem: str) -> Pixels | None:
    names = [f"{stem}.{name}".lstrip(".") for name in MAGIC]
    content = next((members[name] for name in names if name in members), None)
    pixels = None if content is None else cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _small(pixels: Pixels, side: int) -> Pixels:
    factor = min(1.0, side / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA), np.uint8)
