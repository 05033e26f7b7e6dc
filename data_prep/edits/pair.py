"""`Pair`: source and target at working size with the views that several checks share, each computed once."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from data_prep.edits.verdict import Array, Mask, Pixels


def shrink(pixels: Pixels, side: int) -> Pixels:
    """The picture with its long side at most `side` px, by averaging areas; never enlarged."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def gray(pixels: Pixels) -> Array:
    """Luma 0..255, float32 [H, W] (BT.601)."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.float32)


def lab(pixels: Pixels) -> Array:
    """CIELAB (D65): L 0..100, a and b about -100..100, float32 [H, W, 3]."""
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def gradient(image: Array) -> Array:
    """Length of the Sobel gradient over all channels, units of the image per px, [H, W, 3] -> [H, W]."""
    dx = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    dy = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    return np.asarray(cv2.magnitude(vector_length(dx), vector_length(dy)), np.float32)


def vector_length(vectors: Array) -> Array:
    """Euclidean length, [H, W, 3] -> [H, W]."""
    first, second, third = cv2.split(vectors)
    return np.asarray(cv2.sqrt(first * first + second * second + third * third), np.float32)


def channel_max(image: Array) -> Array:
    """Largest of three channels, [H, W, 3] -> [H, W]."""
    first, second, third = cv2.split(image)
    return np.asarray(cv2.max(cv2.max(first, second), third))


def mean_in(image: Array, mask: Mask) -> Array:
    """Mean over the true pixels, per channel: [H, W] or [H, W, C] -> [C]; zeros for an empty mask."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    return np.asarray(cv2.mean(image, mask.view(np.uint8))[:channels], np.float32)


def dilate(mask: Mask, radius: int) -> Mask:
    """The mask and all within `radius` px of it."""
    if radius < 1:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


class Pair:
    """Both pictures of a triplet, of one size, and the given mask at that size."""

    def __init__(self, source: Pixels, target: Pixels, mask: Mask | None, side: int) -> None:
        self.full_source, self.full_target = source, target
        self.source, self.target = shrink(source, side), shrink(target, side)
        self.given: Mask | None = None
        if mask is not None:
            white = cv2.resize(mask.astype(np.uint8) * 255, self.source.shape[1::-1], interpolation=cv2.INTER_AREA)
            self.given = np.asarray(white > 0)

    @property
    def margin(self) -> int:
        """Px at working size by which edits are taken to reach beyond their mask (about 1.5 % of the long side)."""
        height, width = self.source.shape[:2]
        return max(2, round(0.015 * float(max(height, width))))

    @cached_property
    def source_gray(self) -> Array:
        """Luma of the source."""
        return gray(self.source)

    @cached_property
    def target_gray(self) -> Array:
        """Luma of the target."""
        return gray(self.target)

    @cached_property
    def source_lab(self) -> Array:
        """CIELAB of the source."""
        return lab(self.source)

    @cached_property
    def target_lab(self) -> Array:
        """CIELAB of the target."""
        return lab(self.target)

    @cached_property
    def source_edges(self) -> Array:
        """CIELAB gradient of the source: colour counts, so that an edge between equally bright things is seen."""
        return gradient(self.source_lab)

    @cached_property
    def target_edges(self) -> Array:
        """CIELAB gradient of the target."""
        return gradient(self.target_lab)

    @cached_property
    def difference(self) -> Array:
        """Largest difference of the three channels after a slight blur (noise is not a change), levels, [H, W]."""
        sigma = max(self.source.shape[:2]) / 256
        return channel_max(np.abs(cv2.GaussianBlur(self.signed, (0, 0), sigma)))

    @cached_property
    def signed(self) -> Array:
        """Target - source, levels, float32 [H, W, 3]."""
        return np.asarray(cv2.subtract(self.target, self.source, dtype=cv2.CV_32F), np.float32)

    @cached_property
    def lab_signed(self) -> Array:
        """Target - source in CIELAB."""
        return self.target_lab - self.source_lab
