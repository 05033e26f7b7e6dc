"""Faults of edit pairs, made on purpose, each with the reasons that should name it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from data_prep.edits.calibration_pairs import EditPair, jpeg, quantise
from data_prep.edits.verdict import Array, Pixels
from data_prep.edits.vocabulary import EditType

LOCAL: tuple[EditType, ...] = ("add", "remove", "replace", "recolour", "text", "move")


@dataclass(frozen=True)
class Corruption:
    """A fault: how to make it, the types it is a fault of, and the reasons that name it."""

    apply: Callable[[EditPair, np.random.Generator], EditPair]
    reasons: frozenset[str]
    types: tuple[EditType, ...] = LOCAL
    with_mask: bool = False  # whether the checks are given the true mask


def _retarget(
    change: Callable[[Pixels, np.random.Generator], Pixels],
) -> Callable[[EditPair, np.random.Generator], EditPair]:
    return lambda pair, rng: replace(pair, target=change(pair.target, rng))


def _shift(px: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def apply(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        angle = rng.uniform(0, 2 * np.pi)
        step = np.array([[1, 0, px * np.cos(angle)], [0, 1, px * np.sin(angle)]], np.float32)
        return _warp(pixels, step)

    return apply


def _zoom(factor: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def apply(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        height, width = pixels.shape[:2]
        scale = factor if rng.random() < 0.5 else 1 / factor
        return _warp(pixels, np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), 0, scale), np.float32))

    return apply


def _warp(pixels: Pixels, matrix: Array) -> Pixels:
    size = pixels.shape[1::-1]
    return np.asarray(
        cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT), np.uint8
    )


def _tint(low: float, high: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    def apply(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        direction = rng.normal(size=3)
        return quantise(pixels + rng.uniform(low, high) * direction / np.linalg.norm(direction))

    return apply


def _no_op(pair: EditPair, rng: np.random.Generator) -> EditPair:
    return replace(pair, target=jpeg(pair.source, int(rng.integers(85, 96))))


def _wrong_region(pair: EditPair, rng: np.random.Generator) -> EditPair:
    """The edit lands in another place than it was asked for."""
    side = pair.source.shape[0]
    ys, xs = np.nonzero(pair.mask)
    top, left, h, w = ys.min(), xs.min(), int(np.ptp(ys)) + 1, int(np.ptp(xs)) + 1
    corners = [(y, x) for y in (0, side - h) for x in (0, side - w)]
    to_y, to_x = max(corners, key=lambda corner: abs(corner[0] - top) + abs(corner[1] - left))
    target = pair.source.copy()
    window = pair.mask[top : top + h, left : left + w]
    patch = pair.target if not _is_empty_target(pair) else pair.source
    target[to_y : to_y + h, to_x : to_x + w][window] = patch[top : top + h, left : left + w][window]
    return replace(pair, target=target)


def _is_empty_target(pair: EditPair) -> bool:
    return pair.type == "remove"  # what would be pasted is background; the object makes a visible fault


def _seam(pair: EditPair, rng: np.random.Generator) -> EditPair:
    """A box around the edit that was made anew in another tone, with hard borders."""
    side = pair.source.shape[0]
    ys, xs = np.nonzero(pair.mask)
    pad = rng.integers(12, 40, 4)
    top, left = max(12, ys.min() - pad[0]), max(12, xs.min() - pad[1])
    bottom, right = min(side - 12, ys.max() + pad[2]), min(side - 12, xs.max() + pad[3])
    target = pair.target.astype(np.float32)
    target[top:bottom, left:right] += rng.choice([-1, 1]) * rng.uniform(5, 11)
    return replace(pair, target=quantise(target))


def _blur(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(1.2, 3)), np.uint8)


def _noise(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return quantise(pixels + rng.normal(0, rng.uniform(8, 20), pixels.shape))


def _exposure(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    dark = rng.random() < 0.5
    image = pixels.astype(np.float32)
    return quantise((image - 130) * 2.2 if dark else image * rng.uniform(2.2, 3.0))


def _band(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    width = int(rng.uniform(0.02, 0.08) * len(pixels))
    framed = np.rot90(pixels, int(rng.integers(4))).copy()
    framed[:width] = rng.choice([0, 255, 128])
    return framed


def _saturation(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    grey = pixels.mean(2, keepdims=True)
    return quantise(grey + rng.uniform(1.8, 2.6) * (pixels - grey))


def _relabel(*types: EditType) -> Callable[[EditPair, np.random.Generator], EditPair]:
    return lambda pair, rng: replace(pair, type=types[int(rng.integers(len(types)))])


def _refusal(pair: EditPair, rng: np.random.Generator) -> EditPair:
    texts = ("I'm sorry, but I can't help with that.", "", "   ...", "As an AI model I cannot edit this image.")
    return replace(pair, instruction=texts[int(rng.integers(len(texts)))])


_SHIFTED = frozenset({"shifted"})
_QUALITY = frozenset({"blurred", "noisy", "clipped", "blocky", "border_band", "saturation", "seam"})
_BACKGROUND = frozenset({"background_colour", "background_structure", "background_noise"})
_AREA = frozenset({"change_too_small", "change_too_large", "scattered", "no_change"})

CORRUPTIONS: Mapping[str, Corruption] = {
    **{f"shift {px} px of 512": Corruption(_retarget(_shift(px)), _SHIFTED) for px in (1, 2, 3, 4, 6, 8)},
    **{f"zoom {factor}": Corruption(_retarget(_zoom(factor)), frozenset({"zoomed"})) for factor in (1.01, 1.02, 1.05)},
    "tint 8..11 levels": Corruption(_retarget(_tint(8, 11)), frozenset({"background_colour"})),
    "tint 16..40 levels": Corruption(_retarget(_tint(16, 40)), frozenset({"background_colour"})),
    "no-op": Corruption(_no_op, frozenset({"no_change"}), (*LOCAL, "style", "global", "background")),
    "wrong region, mask given": Corruption(_wrong_region, frozenset({"outside_mask"}), with_mask=True),
    "seam": Corruption(_seam, frozenset({"seam"})),
    "blur": Corruption(_retarget(_blur), frozenset({"blurred"})),
    "noise": Corruption(_retarget(_noise), frozenset({"noisy"})),
    "jpeg quality 8..20": Corruption(
        _retarget(lambda pixels, rng: jpeg(pixels, int(rng.integers(8, 21)))), frozenset({"blocky"})
    ),
    "clipped exposure": Corruption(_retarget(_exposure), frozenset({"clipped"})),
    "border band": Corruption(_retarget(_band), frozenset({"border_band"})),
    "saturation": Corruption(_retarget(_saturation), frozenset({"saturation"})),
    "label: add is remove": Corruption(_relabel("remove"), frozenset({"nothing_removed"}), ("add",)),
    "label: remove is add": Corruption(_relabel("add"), frozenset({"nothing_added"}), ("remove",)),
    "label: replace is recolour": Corruption(
        _relabel("recolour"), frozenset({"recolour_shape"}), ("add", "remove", "replace", "move")
    ),
    "label: recolour is text": Corruption(_relabel("text"), frozenset({"no_text", "same_text"}), ("add", "recolour")),
    "label: local is style": Corruption(_relabel("style", "global"), frozenset({"change_too_small"})),
    "label: local is background": Corruption(
        _relabel("background"), frozenset({"change_too_small", "background_kept"})
    ),
    "label: style is local": Corruption(
        _relabel("add", "remove"), frozenset({"change_too_large", *_BACKGROUND}), ("style", "global", "background")
    ),
    "refusal": Corruption(_refusal, frozenset({"refusal", "no_instruction"})),
}
