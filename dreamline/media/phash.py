"""A perceptual hash of 64 bits: signs of the low frequencies of the picture (DCT), exact in integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from dreamline.media.jpeg import cv2

_SIDE, _LOW = 32, 8  # the picture is shrunk to 32 x 32, of which the 8 x 8 lowest frequencies count

# First rows of the DCT-II, in units of 2^-14: integers, so that a hash never depends on the machine's rounding.
_BASIS = np.rint(
    2**14 * np.cos(np.pi / _SIDE * np.outer(np.arange(_LOW), np.arange(_SIDE) + 0.5)),
).astype(np.int64)
_MIRRORED = np.where(np.arange(_LOW) % 2 == 0, 1, -1)  # a mirror image has the other sign in odd columns
_BITS = np.left_shift(np.uint64(1), np.arange(_LOW * _LOW, dtype=np.uint64)[::-1])


def phash(pixels: NDArray[np.uint8]) -> int:
    """Hash of a picture [H, W, 3] or [H, W], in [0, 2^63) so that it fits a signed column; 0 for a flat picture."""
    return phash_both(pixels)[0]


def phash_both(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Hashes of a picture and of its mirror image, for little more than the price of one.

    Bits say which coefficients exceed their median (Zauner 2010). The first, for the mean, is always 0.
    """
    small = _shrink(pixels).astype(np.int64)
    low = _BASIS @ (small - int(small.mean())) @ _BASIS.T  # [8, 8], exact: below 2^47
    return _signs(low), _signs(low * _MIRRORED)


def hamming(a: ArrayLike, b: ArrayLike) -> NDArray[np.uint8]:
    """Number of bits in which hashes differ, elementwise with broadcasting."""
    x, y = np.asarray(a).astype(np.uint64), np.asarray(b).astype(np.uint64)
    return np.asarray(np.bitwise_count(x ^ y))


def _signs(low: NDArray[np.int64]) -> int:
    waves = low.ravel()[1:]
    return int(_BITS[1:][waves > np.sort(waves)[len(waves) // 2]].sum())  # 63 of them: the middle one is the median


def _shrink(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if cv2 is None:
        return np.asarray(Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX))
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small: NDArray[np.uint8] = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return small
