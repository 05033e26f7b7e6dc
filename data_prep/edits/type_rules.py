"""What the pixels of a change must show for an edit of a type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.edits.config import TypeRules
from data_prep.edits.pair import Pair, dilate, mean_in, vector_length
from data_prep.edits.verdict import Array, Mask, Problem
from data_prep.edits.vocabulary import EditType

STROKE = 30.0  # levels by which a thin line stands out


@dataclass(frozen=True)
class TypeSigns:
    """What happened inside a change, source -> target."""

    edges_kept: float  # correlation of the edge maps
    recolour: float  # mean CIELAB difference
    edge_energy: float  # log of the ratio of mean gradients
    outline: float  # log of the ratio of the contrast across the outline: an object adds it
    strokes: float  # share of thin lines, in the picture that has more
    stroke_change: float  # share of px that are a thin line in one picture only
    border: float  # share of the picture's border that changed


def type_signs(pair: Pair, mask: Mask) -> TypeSigns:
    """Measure inside `mask` [H, W]; nothing in it gives zeros."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if not mask.any():
        return TypeSigns(0, 0, 0, 0, 0, 0, 0)
    wide = dilate(mask, 2)
    edges = pair.source_edges[wide], pair.target_edges[wide]
    contrasts = outline_contrast(pair.source_lab, mask), outline_contrast(pair.target_lab, mask)
    strokes = [_strokes(pair.source_gray)[mask], _strokes(pair.target_gray)[mask]]
    return TypeSigns(
        edges_kept=_correlation(*edges),
        recolour=float(mean_in(vector_length(pair.lab_signed), mask)[0]),
        edge_energy=float(np.log((edges[1].mean() + 0.5) / (edges[0].mean() + 0.5))),
        outline=float(np.log((contrasts[1] + 1) / (contrasts[0] + 1))),
        strokes=float(max(part.mean() for part in strokes)),
        stroke_change=float((strokes[0] != strokes[1]).mean()),
        border=float(border.mean()),
    )


def type_problems(signs: TypeSigns, edit_type: EditType, config: TypeRules) -> Iterator[Problem]:
    """Reason and detail: `recolour_shape`, `recolour_none`, `nothing_added`, `nothing_removed`, `no_text`, ..."""
    if edit_type == "recolour":
        if signs.edges_kept < config.min_edges_kept:
            yield "recolour_shape", f"edges correlate by {signs.edges_kept:.2f}, a recolouring keeps them"
        if signs.recolour < config.min_recolour:
            yield "recolour_none", f"the colour changed by {signs.recolour:.1f} CIELAB"
    elif edit_type == "add" and signs.outline < config.min_outline:
        yield "nothing_added", f"the contrast across the outline changed by exp({signs.outline:+.2f}), must grow"
    elif edit_type == "remove" and -signs.outline < config.min_outline:
        yield "nothing_removed", f"the contrast across the outline changed by exp({signs.outline:+.2f}), must fall"
    elif edit_type == "text":
        if signs.strokes < config.min_strokes:
            yield "no_text", f"{signs.strokes:.3f} of the change are thin lines, text has {config.min_strokes}"
        if signs.stroke_change < config.min_stroke_change:
            yield "same_text", f"thin lines changed in {signs.stroke_change:.3f} of the change"
    elif edit_type == "background" and signs.border < config.min_border:
        yield "background_kept", f"{signs.border:.2f} of the picture's border changed, a background reaches it"


def outline_contrast(lab: Array, mask: Mask) -> float:
    """Mean CIELAB distance of what lies just inside the outline of a mask to what lies just outside.

    The two means are local (a Gaussian of about 1 % of the picture), so a textured surrounding counts little, and an
    object on texture counts although it may be smoother than what it hides.
    """
    sigma = max(2.0, max(mask.shape) / 128)
    ys, xs = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(ys):
        return 0.0
    reach = int(4 * sigma) + 2  # the rest of the picture has no weight
    window = np.s_[max(0, ys[0] - reach) : ys[-1] + reach, max(0, xs[0] - reach) : xs[-1] + reach]
    lab, mask = lab[window], mask[window]
    band = dilate(mask, 1) & dilate(~mask, 1)
    if not band.any():
        return 0.0

    def local_mean(part: Mask) -> Array:
        weight = cv2.GaussianBlur(part.astype(np.float32), (0, 0), sigma)
        total = cv2.GaussianBlur(cv2.copyTo(lab, part.view(np.uint8)), (0, 0), sigma)
        return np.asarray(total / np.maximum(weight, 1e-6)[..., None], np.float32)

    return float(mean_in(vector_length(local_mean(mask) - local_mean(~mask)), band)[0])


def _correlation(first: Array, second: Array) -> float:
    """Pearson's; 1 for two flat ones, 0 where one is flat."""
    a, b = first - first.mean(), second - second.mean()
    spread = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if spread < 1e-6:
        return float(a.std() < 1e-3 and b.std() < 1e-3)
    return float((a * b).sum() / spread)


def _strokes(luma: Array) -> Mask:
    """Thin lines: what a closing or an opening of about 1.5 % of the picture removes by more than STROKE."""
    size = max(3, round(max(luma.shape) / 64)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    bright = cv2.morphologyEx(luma, cv2.MORPH_TOPHAT, kernel)
    dark = cv2.morphologyEx(luma, cv2.MORPH_BLACKHAT, kernel)
    return np.asarray(np.maximum(bright, dark) > STROKE)
