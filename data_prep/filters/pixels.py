"""Measures of one picture that need no model: blur, exposure, entropy, flatness and an estimate of text.

All take pixels [H, W, 3] uint8 and work on a copy whose longer side is at most `SCALE`, so that a
threshold means the same for pictures of any size. Smaller pictures are not enlarged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

SCALE = 512  # px, longer side at which pictures are measured
STRAY = 0.2  # of print: the most that lower edges of glyphs deviate along a line, of their height
UNEVEN = 0.3  # of print: the most that tone deviates within a glyph, of its mean

Pixels = NDArray[np.uint8]


def luma(pixels: Pixels, scale: int = SCALE) -> Pixels:
    """Grey picture [h, w] whose longer side is at most `scale` px (area average)."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    factor = scale / max(grey.shape)
    if factor >= 1:
        return np.asarray(grey, np.uint8)
    size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)


def sharpness(grey: Pixels) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000), grey levels squared; small is blurred or empty."""
    return float(cv2.Laplacian(grey, cv2.CV_32F, ksize=3).var())


def brightness(grey: Pixels) -> float:
    """Mean in [0, 1]."""
    return float(grey.mean()) / 255


def contrast(grey: Pixels) -> float:
    """Standard deviation in [0, 0.5]."""
    return float(grey.std()) / 255


def clipped(grey: Pixels) -> float:
    """Share of pixels that are all but black (<= 2) or all but white (>= 253), in [0, 1]."""
    return float(np.mean((grey <= 2) | (grey >= 253)))


def entropy(grey: Pixels) -> float:
    """Entropy of the histogram of grey levels, bits in [0, 8]."""
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    return float(max(0.0, -(share * np.log2(share)).sum()))


def flatness(grey: Pixels) -> float:
    """Share of cells of a 16 x 16 grid in which grey levels deviate by less than 2, in [0, 1]: 1 is a plain area."""
    rows, columns = (np.array_split(np.arange(side), min(16, side)) for side in grey.shape)
    cells = [grey[row[0] : row[-1] + 1, column[0] : column[-1] + 1].std() for row in rows for column in columns]
    return float(np.mean(np.asarray(cells) < 2.0))


def text_share(grey: Pixels) -> float:
    """Share of the picture's area under lines of text, in [0, 1]. An estimate from strokes; it reads nothing.

    Print is thin strokes of one tone on another. For dark and for light print: what a black-hat (or top-hat) lifts out
    is binarised; components of the size of glyphs and of even tone are kept; neighbours on one base line are joined;
    and a joined box counts where it is longer than high and holds at least four glyphs of like height on one level.
    """
    boxes = np.zeros(grey.shape, bool)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (13, 13))
    for operation in (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT):
        lifted = cv2.morphologyEx(grey, operation, kernel)
        level, _ = cv2.threshold(lifted, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        for tallest, reach in ((16, 13), (64, 45)):  # px: height of the glyphs, and how far words are joined
            _mark_lines(lifted, max(level, 40), tallest, reach, boxes)
    return float(boxes.mean())


def _mark_lines(lifted: Pixels, level: float, tallest: int, reach: int, boxes: NDArray[np.bool_]) -> None:
    """Set in `boxes` the boxes of rows of glyph-like components of `lifted > level`."""
    num, labels, stats, _ = cv2.connectedComponentsWithStats((lifted > level).astype(np.uint8), connectivity=8)
    width, height, area = (stats[:, column].astype(np.float64) for column in (2, 3, 4))
    glyph = (height >= 5) & (height > tallest / 4) & (height <= tallest) & (width <= 3 * height) & (area >= 8)
    fill = area / np.maximum(width * height, 1)
    glyph &= (fill >= 0.12) & (fill <= 0.95)
    total = np.bincount(labels.ravel(), weights=lifted.ravel(), minlength=num)
    square = np.bincount(labels.ravel(), weights=np.square(lifted.ravel(), dtype=np.float64), minlength=num)
    mean = total / np.maximum(area, 1)
    glyph &= np.sqrt(np.maximum(square / np.maximum(area, 1) - mean**2, 0)) <= UNEVEN * mean
    glyph[0] = False  # the background
    if glyph.sum() < 4:
        return
    joined = cv2.morphologyEx(glyph[labels].astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, reach), np.uint8))
    num_lines, line_labels, lines, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    rows, columns = np.nonzero(glyph[labels])
    pixel_line = np.zeros(num, np.int64)  # the line of each glyph: of any pixel of it, as all lie in the same one
    pixel_line[labels[rows, columns]] = line_labels[rows, columns]
    line_of, high = pixel_line[glyph], height[glyph]
    count = np.bincount(line_of, minlength=num_lines)
    mean_high, high_spread = _moments(line_of, high, count)
    _, base_spread = _moments(line_of, stats[glyph, 1] + high, count)
    good = (count >= 4) & (high_spread <= 0.35 * mean_high) & (base_spread <= STRAY * mean_high)
    good &= (lines[:, 2] >= 2 * lines[:, 3]) & (lines[:, 3] <= 2.5 * mean_high)
    for index in np.flatnonzero(good[1:]) + 1:
        x, y, w, h, _ = lines[index]
        boxes[y : y + h, x : x + w] = True


def _moments(
    group: NDArray[np.int64], values: NDArray[np.float64], count: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of the values of each group, 0 for a group without any."""
    mean = np.bincount(group, weights=values, minlength=len(count)) / np.maximum(count, 1)
    square = np.bincount(group, weights=(values - mean[group]) ** 2, minlength=len(count)) / np.maximum(count, 1)
    return mean, np.sqrt(square)


MEASURES: Mapping[str, Callable[[Pixels], float]] = {
    "sharpness": sharpness,
    "brightness": brightness,
    "contrast": contrast,
    "clipped": clipped,
    "entropy": entropy,
    "flatness": flatness,
    "text_share": text_share,
}
