"""Shift and zoom between two pictures of one scene, from what tiles of them tell."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.edits.pair import gray, shrink
from data_prep.edits.verdict import Pixels

SIDE = 256  # px, long side at which motion is measured
TILE = 96  # px; motions up to about a quarter of it are seen
STEPS = 5  # tiles along each side, overlapping
TEXTURE = 1.5  # levels, standard deviation below which a tile tells nothing
RESPONSE = 0.15  # of phase correlation, below which its peak is no motion
CLOSE = 0.5  # px at SIDE within which a tile agrees with the motion of all


@dataclass(frozen=True)
class Motion:
    """Motion of the target against the source: at c, measured from the middle, by shift + zoom * c."""

    shift: float  # px for a long side of 256
    zoom: float  # scale - 1
    agreement: float  # share of all tiles that tell of this motion; textureless ones do not


def register(source: Pixels, target: Pixels) -> Motion:
    """Motion of the whole picture, by phase correlation of 5 x 5 tiles and medians over them.

    The medians ignore an edit as long as it moves fewer than about 3 in 10 tiles.
    """
    first, second = gray(shrink(source, SIDE)), gray(shrink(target, SIDE))
    height, width = first.shape
    scale = SIDE / max(height, width)  # for pictures smaller than SIDE
    th, tw = min(TILE, height), min(TILE, width)
    tops = sorted({round(x) for x in np.linspace(0, height - th, STEPS)})
    lefts = sorted({round(x) for x in np.linspace(0, width - tw, STEPS)})
    window = cv2.createHanningWindow((tw, th), cv2.CV_32F)
    centres, motions = [], []
    for top in tops:
        for left in lefts:
            a, b = first[top : top + th, left : left + tw], second[top : top + th, left : left + tw]
            if min(a.std(), b.std()) < TEXTURE:
                continue
            (dx, dy), response = cv2.phaseCorrelate(a - a.mean(), b - b.mean(), window)
            if response >= RESPONSE:
                centres.append((left + tw / 2 - width / 2, top + th / 2 - height / 2))
                motions.append((dx, dy))
    if len(motions) < 3:
        return Motion(0.0, 0.0, 0.0)
    at, by = np.array(centres), np.array(motions)
    # Theil-Sen: the median slope over pairs of tiles, then the median of what is left.
    i, j = np.triu_indices(len(at), 1)
    apart, relative = at[j] - at[i], by[j] - by[i]
    zoom = float(np.median((apart * relative).sum(1) / (apart**2).sum(1)))
    rest = by - zoom * at
    shift = np.median(rest, axis=0)
    agrees = np.hypot(*(rest - shift).T) * scale < CLOSE
    return Motion(float(np.hypot(*shift)) * scale, zoom, float(agrees.sum() / (len(tops) * len(lefts))))
