"""Sizes from the first bytes are those that the whole header tells."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamline.media.config import DecodeConfig
from dreamline.media.errors import MediaError
from dreamline.media.header import read_header
from dreamline.media.size import FIRST, read_size


def file(form: str, mode: str = "RGB", orientation: int = 1, **values: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (41, 67, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    extra = {"exif": exif} if orientation > 1 else {}
    Image.fromarray(pixels).convert(mode).save(buffer, form, **extra, **values)
    return buffer.getvalue()


FILES = {
    "jpeg": file("JPEG"),
    "progressive": file("JPEG", progressive=True),
    "grey": file("JPEG", "L"),
    "cmyk": file("JPEG", "CMYK"),
    "turned": file("JPEG", orientation=6),
    "mirrored": file("JPEG", orientation=4),
    "profile": file("JPEG", icc_profile=b"x" * 100_000),
    "png": file("PNG"),
    "palette": file("PNG", "P"),
    "lossy": file("WEBP"),
    "lossless": file("WEBP", lossless=True),
    "alpha": file("WEBP", "RGBA"),
    "gif": file("GIF"),
    "bmp": file("BMP"),
    "tiff": file("TIFF"),
    "tiff turned": file("TIFF", orientation=8),
    "avif": file("AVIF"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_size_that_the_header_tells(name: str) -> None:
    content = FILES[name]
    header = read_header(content, DecodeConfig())
    assert read_size(content) == (header.width, header.height)
    start = read_size(content[:FIRST], whole=len(content) <= FIRST)
    assert start in (None, (header.width, header.height))
    if name in ("jpeg", "progressive", "grey", "turned", "png", "lossy", "lossless", "alpha", "gif"):
        assert start is not None


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow's, of TIFF
@pytest.mark.parametrize("name", ["jpeg", "turned", "png", "lossy", "gif", "tiff"])
def test_a_cut_file_has_its_size_or_none(name: str) -> None:
    content = FILES[name]
    size = read_size(content)
    for kept in (*range(0, 700, 7), len(content) // 2):
        with suppress(MediaError):
            assert read_size(content[:kept]) == size


def test_what_is_no_picture() -> None:
    for content in (b"", b"<html>", bytes(100), b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0\0\x04ab!!!!!!!!!!"):
        with pytest.raises(MediaError):
            read_size(content)
    assert read_size(b"", whole=False) is None
    with pytest.raises(MediaError, match="0 x 5"):
        read_size(FILES["png"][:16] + bytes(4) + b"\0\0\0\5" + FILES["png"][24:])
    with pytest.raises(MediaError, match="4294967295 x 5"):
        read_size(FILES["png"][:16] + b"\xff" * 4 + b"\0\0\0\5" + FILES["png"][24:])
