"""What the pixels of a change must show for an edit of a type."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.edits.config import TypeRules
from data_prep.edits.pair import Pair, dilate
from data_prep.edits.verdict import Array, Mask
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
    strokes = [_strokes(pair.source_gray)[mask], _strokes(pair.target_gray)[mask]]
    return TypeSigns(
        edges_kept=_correlation(*edges),
        recolour=float(np.linalg.norm(pair.target_lab - pair.source_lab, axis=2)[mask].mean()),
        edge_energy=float(np.log((edges[1].mean() + 0.5) / (edges[0].mean() + 0.5))),
        outline=float(
            np.log((outline_contrast(pair.target_lab, mask) + 1) / (outline_contrast(pair.source_lab, mask) + 1))
        ),
        strokes=float(max(part.mean() for part in strokes)),
        stroke_change=float((strokes[0] != strokes[1]).mean()),
        border=float(border.mean()),
    )


def type_problem(signs: TypeSigns, edit_type: EditType, config: TypeRules) -> tuple[str, str] | None:
    """Reason and detail: `recolour_shape`, `recolour_none`, `nothing_added`, `nothing_removed`, `no_text`, ..."""
    if edit_type == "recolour":
        if signs.edges_kept < config.min_edges_kept:
            return "recolour_shape", f"edges correlate by {signs.edges_kept:.2f}, a recolouring keeps them"
        if signs.recolour < config.min_recolour:
            return "recolour_none", f"the colour changed by {signs.recolour:.1f} CIELAB"
    elif edit_type == "add" and signs.outline < config.min_outline:
        return "nothing_added", f"the contrast across the outline changed by exp({signs.outline:+.2f}), must grow"
    elif edit_type == "remove" and -signs.outline < config.min_outline:
        return "nothing_removed", f"the contrast across the outline changed by exp({signs.outline:+.2f}), must fall"
    elif edit_type == "text":
        if signs.strokes < config.min_strokes:
            return "no_text", f"{signs.strokes:.3f} of the change are thin lines, text has {config.min_strokes}"
        if signs.stroke_change < config.min_stroke_change:
            return "same_text", f"thin lines changed in {signs.stroke_change:.3f} of the change"
    elif edit_type == "background" and signs.border < config.min_border:
        return "background_kept", f"{signs.border:.2f} of the picture's border changed, a background reaches it"
    return None


def outline_contrast(lab: Array, mask: Mask) -> float:
    """Mean CIELAB distance of what lies just inside the outline of a mask to what lies just outside.

    The two means are local (a Gaussian of about 1 % of the picture), so a textured surrounding counts little, and an
    object on texture counts although it may be smoother than what it hides.
    """
    sigma = max(2.0, max(mask.shape) / 128)
    inside = mask.astype(np.float32)
    band = dilate(mask, 1) & dilate(~mask, 1)
    if not band.any():
        return 0.0

    def local_mean(weight: Array) -> Array:
        total = cv2.GaussianBlur(weight, (0, 0), sigma)[band]
        mean = cv2.GaussianBlur(lab * weight[..., None], (0, 0), sigma)[band]
        return np.asarray(mean / np.maximum(total, 1e-6)[:, None], np.float32)

    return float(np.linalg.norm(local_mean(inside) - local_mean(1 - inside), axis=1).mean())


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
