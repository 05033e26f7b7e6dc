"""Perceptual hashes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from dreamline.media.config import DecodeConfig
from dreamline.media.decode import decode
from dreamline.media.jpeg import encode_jpeg
from dreamline.media.phash import hamming, phash, phash_both


def picture(seed: int, width: int = 320, height: int = 240) -> np.ndarray:
    """Smooth random blobs."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def test_copies_are_near_and_others_far() -> None:
    own = [picture(seed) for seed in range(40)]
    hashes = np.array([phash(p) for p in own])
    smaller = [np.asarray(Image.fromarray(p).resize((150, 113), Image.Resampling.LANCZOS)) for p in own]
    packed = [decode(encode_jpeg(p, 30), DecodeConfig()).pixels for p in own]
    brighter = [np.asarray(ImageEnhance.Brightness(Image.fromarray(p)).enhance(0.8)) for p in own]
    for copies in (smaller, packed, brighter):
        assert hamming(hashes, [phash(p) for p in copies]).max() <= 8
    others = hamming(hashes[:, None], hashes[None])[~np.eye(40, dtype=bool)]
    assert others.min() > 12
    assert abs(others.mean() - 31.5) < 3


@given(st.integers(0, 10_000), st.integers(64, 300), st.integers(64, 300))
@settings(max_examples=60, deadline=None)
def test_the_mirrored_hash_is_that_of_the_mirror_image(seed: int, width: int, height: int) -> None:
    pixels = picture(seed, width, height)
    own, mirrored = phash_both(pixels)
    assert 0 <= own < 2**63
    assert phash_both(pixels) == (own, mirrored)
    flipped = phash_both(np.ascontiguousarray(pixels[:, ::-1]))
    assert hamming([own, mirrored], flipped[::-1]).max() <= 4  # shrinking rounds
    assert hamming(own, mirrored) > 4


def test_flat_pictures_have_no_hash() -> None:
    for level in (0, 7, 128, 255):
        assert phash_both(np.full((50, 70, 3), level, np.uint8)) == (0, 0)
    grey = picture(3)[..., 0]
    assert phash(grey) == phash(np.repeat(grey[..., None], 3, 2))


def test_against_the_definition() -> None:
    """The 8 x 8 lowest coefficients of a floating-point DCT of the 32 x 32 grey picture, against their median."""
    cv2 = pytest.importorskip("cv2")
    for seed in range(20):
        pixels = picture(seed)
        grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
        # Their DCT is orthonormal: the first row and column are smaller by the root of two.
        low = cv2.dct(grey.astype(np.float64) - int(grey.mean()))[:8, :8] * np.outer(
            [2**0.5] + [1] * 7, [2**0.5] + [1] * 7
        )
        waves = low.ravel()[1:]
        expected = int("".join("01"[int(w > np.median(waves))] for w in waves), 2)
        assert hamming(phash(pixels), expected) <= 1


def test_hamming_is_elementwise() -> None:
    assert hamming([0, 1, 2**63 - 1], 0).tolist() == [0, 1, 63]
    assert hamming(np.array([[1], [2]], np.int64), np.array([1, 2], np.uint64)).tolist() == [[0, 2], [2, 0]]
