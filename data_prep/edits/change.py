"""Where a pair differs, how much and how scattered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.edits.config import Change
from data_prep.edits.pair import Pair, dilate
from data_prep.edits.verdict import Mask, Problem
from data_prep.edits.vocabulary import EditType, scope_of

SPECK = 2e-4  # share of the picture below which a piece of the change is noise


@dataclass(frozen=True)
class ChangeMask:
    """The change of a pair at working size, in pieces."""

    mask: Mask
    area: float  # share of the picture in the mask
    wide_area: float  # share that differs by the floor at all, whatever Otsu's threshold
    pieces: int
    scatter: float  # share of the mask outside its three largest pieces
    in_given: float  # share of the mask inside the given one; 1 without one


def change_mask(pair: Pair, config: Change) -> ChangeMask:
    """Blurred difference -> Otsu's threshold between floor and ceiling -> closing -> pieces without specks."""
    difference = pair.difference
    levels = np.clip(np.rint(difference), 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    threshold = min(max(otsu, config.floor), config.ceiling)
    size = max(3, 2 * (max(levels.shape) // 128) + 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    closed = cv2.morphologyEx((difference >= threshold).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = areas >= SPECK * closed.size
    mask = np.concatenate([[False], kept])[labels]
    largest = np.sort(areas[kept])[::-1]
    total = int(largest.sum())
    inside = 1.0
    if pair.given is not None and total:
        inside = float((mask & dilate(pair.given, pair.margin)).sum() / total)
    return ChangeMask(
        mask=mask,
        area=total / mask.size,
        wide_area=float((difference >= config.floor).mean()),
        pieces=len(largest),
        scatter=float(largest[3:].sum() / total) if total else 0.0,
        in_given=inside,
    )


def change_problems(change: ChangeMask, edit_type: EditType, config: Change) -> Iterator[Problem]:
    """Reason and detail: `no_change`, `change_too_small`, `change_too_large`, `scattered` or `outside_mask`."""
    scope = scope_of(edit_type)
    area = change.area if scope == "local" else change.wide_area
    if max(change.area, change.wide_area) < config.min_area:
        yield "no_change", f"{change.wide_area:.4f} of the picture changed, a change is {config.min_area}"
    limits = {"local": config.local_area, "global": config.global_area, "background": config.background_area}
    if scope in limits:
        least, most = limits[scope]
        if area < least:
            yield "change_too_small", f"{area:.4f} of the picture changed, {edit_type} needs {least}"
        if area > most:
            yield "change_too_large", f"{area:.3f} of the picture changed, {edit_type} may change {most}"
    if scope != "local":
        return
    if change.in_given < config.min_in_mask:
        yield "outside_mask", f"{change.in_given:.2f} of the change is in the mask, at least {config.min_in_mask}"
    if change.scatter > config.max_scatter:
        yield "scattered", f"{change.scatter:.2f} of the change is outside its three largest pieces"
