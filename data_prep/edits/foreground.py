"""Where a pair differs, as the emphasis of the training loss needs it.

The procedure and its constants are those of UniWorld-V1 (`get_mask.py`), which DreamLite's foreground-emphasis loss
follows. The last step, 8 x 8 max-pooling to the latent grid and log2(all / edited) + 1, belongs to training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import cv2
import numpy as np

from data_prep.edits.config import Foreground
from data_prep.edits.verdict import Mask, Pixels


def foreground_mask(sources: Sequence[Pixels], target: Pixels, config: Foreground) -> Mask | None:
    """Edited places of a target, bool [H, W]; None if they are too few to be an edit.

    Grey difference >= threshold -> closing by an ellipse -> pieces (8-connected) below a share of the white area are
    dropped; with several references the intersection. No difference at all gives an all-true mask.
    """
    mask = reduce(np.logical_and, [_differs(source, target, config) for source in sources])
    area = float(mask.mean())
    if area >= config.min_area:
        return mask
    return np.ones_like(mask) if area == 0 else None


def _differs(source: Pixels, target: Pixels, config: Foreground) -> Mask:
    grey = cv2.cvtColor(cv2.absdiff(source, target), cv2.COLOR_RGB2GRAY)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (config.kernel, config.kernel))
    white = cv2.morphologyEx((grey >= config.threshold).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(white, connectivity=8)
    kept = stats[:, cv2.CC_STAT_AREA] >= config.min_piece * white.sum()
    kept[0] = False
    return np.asarray(kept[labels])


def encode_mask(mask: Mask) -> bytes:
    """A mask as a grey PNG, white where edited; equal masks give equal bytes with one version of the codec."""
    ok, content = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    if not ok:
        raise ValueError(f"a mask of shape {mask.shape} cannot be a PNG; it must be [H, W] and not empty")
    return bytes(content.tobytes())


def decode_mask(content: bytes) -> Mask:
    """A mask of a PNG or JPEG, true where it is brighter than half.

    Raises:
        ValueError: the bytes are no picture.
    """
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) if content else None
    if image is None:
        raise ValueError(f"{len(content)} bytes are no picture that could be a mask")
    return np.asarray(image > 127)
