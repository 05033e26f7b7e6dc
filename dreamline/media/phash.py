"""A perceptual hash of 64 bits: signs of the low frequencies of the picture (DCT), exact in integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def phash(pixels: NDArray[np.uint8]) -> int:
    """Hash of a picture [H, W, 3] or [H, W], in [0, 2^63) so that it fits a signed column; 0 for a flat picture."""
    return phash_both(pixels)[0]


def phash_both(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Hashes of a picture and of its mirror image, for little more than the price of one."""
    raise NotImplementedError


def hamming(a: ArrayLike, b: ArrayLike) -> NDArray[np.uint8]:
    """Number of bits in which hashes differ, elementwise with broadcasting."""
    x, y = np.asarray(a).astype(np.uint64), np.asarray(b).astype(np.uint64)
    return np.bitwise_count(x ^ y)
