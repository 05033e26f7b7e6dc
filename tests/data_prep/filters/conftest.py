"""Pictures with known faults, and candidates made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.filters.candidate import Candidate, hash_pixels
from data_prep.record import Picture, Provenance, Record
from dreamline.media.phash import phash_both

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def nature() -> Callable[..., Pixels]:
    """Colour noise whose spectrum falls as 1/f^slope, as photographs' do (1.1 to 1.6)."""

    @cache
    def make(seed: int, height: int = 384, width: int = 512, slope: float = 1.4) -> Pixels:
        random = np.random.default_rng(seed)
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
        frequency[0, 0] = 1
        planes = []
        for _ in range(3):
            waves = (random.normal(size=frequency.shape) + 1j * random.normal(size=frequency.shape)) / frequency**slope
            plane = np.fft.irfft2(waves, s=(height, width))
            planes.append((plane - plane.mean()) / plane.std())
        mixed = 0.7 * planes[0][..., None] + 0.3 * np.stack(planes, -1)
        pixels = np.clip(128 + 50 * mixed, 0, 255).astype(np.uint8)
        pixels.flags.writeable = False
        return pixels

    return make


@pytest.fixture(scope="session")
def print_on() -> Callable[..., Pixels]:
    """The picture with lines of print over it."""

    def make(pixels: Pixels, lines: int, scale: float = 0.8, tone: int = 255, thick: int = 2) -> Pixels:
        pixels = pixels.copy()
        for line in range(lines):
            place = (10, 35 + 40 * line)
            text = "The quick brown fox 123"
            cv2.putText(pixels, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (tone,) * 3, thick, cv2.LINE_AA)
        return pixels

    return make


@pytest.fixture(scope="session")
def candidate() -> Callable[..., Candidate]:
    """A candidate of a picture; its bytes are stood for by its pixels."""

    def make(
        pixels: Pixels,
        text: str | None = "a red fox in the snow",
        row: str = "r0",
        source: Pixels | None = None,
        size: tuple[int, int] | None = None,
        licence: str | None = None,
        key: str | None = None,
        scores: dict[str, float] | None = None,
    ) -> Candidate:
        width, height = size or (pixels.shape[1], pixels.shape[0])
        own, other = phash_both(pixels), None if source is None else phash_both(source)
        record = Record(
            row, "t2i" if source is None else "edit", text, Picture(), provenance=Provenance(licence=licence)
        )
        return Candidate(
            record, "test", key or hash_pixels(pixels)[:32], pixels, width, height,
            sha256=hash_pixels(pixels), pixel_sha256=hash_pixels(pixels), phash=own[0], phash_mirrored=own[1],
            source=source,
            source_sha256=None if source is None else hash_pixels(source),
            source_pixel_sha256=None if source is None else hash_pixels(source),
            source_phash=None if other is None else other[0],
            source_phash_mirrored=None if other is None else other[1],
            scores=scores or {},
        )  # fmt: skip

    return make
