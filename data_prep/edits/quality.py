"""Damage in the target that the source does not have."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.edits.config import Quality
from data_prep.edits.pair import Pair, gray
from data_prep.edits.verdict import Array, Mask, Pixels

FAINT, PLAIN = 2.5, 32.0  # levels: a seam's step is stronger than the first, an object's edge than the second
FLAT = 2.0  # levels, standard deviation below which a border line is uniform


@dataclass(frozen=True)
class Damage:
    """Measures of quality; where `unchanged` was given they are of it."""

    sharpness: float  # variance of the Laplacian, target / source
    clipped: float  # growth of the share of pixels that are black or white in all channels
    blockiness: float  # growth of the excess of differences across an 8 px grid
    band: float  # width of the widest uniform border band that the source lacks, of the shorter side
    chroma: float  # growth of the mean CIELAB chroma
    seam: float  # length of the longest straight faint step, of the shorter side


def damage(pair: Pair, unchanged: Mask | None) -> Damage:
    """Measure the pair; `unchanged` [H, W] is where an edit leaves the picture alone, None for the whole picture."""
    where: Mask = np.ones(pair.source.shape[:2], bool) if unchanged is None else unchanged
    side = min(pair.source.shape[:2])
    laplacians = [np.asarray(cv2.Laplacian(g, cv2.CV_32F))[where] for g in (pair.source_gray, pair.target_gray)]
    chroma = [np.hypot(lab[..., 1], lab[..., 2])[where].mean() for lab in (pair.source_lab, pair.target_lab)]
    return Damage(
        sharpness=float((laplacians[1].var() + 4) / (laplacians[0].var() + 4)),
        clipped=float(_clipped(pair.target)[where].mean() - _clipped(pair.source)[where].mean()),
        blockiness=blockiness(gray(pair.full_target)) - blockiness(gray(pair.full_source)),
        band=max(0, border_band(pair.target) - border_band(pair.source)) / side,
        chroma=float(chroma[1] - chroma[0]),
        seam=longest_seam(pair) / side,
    )


def quality_problem(found: Damage, is_local: bool, config: Quality) -> tuple[str, str] | None:
    """Reason and detail: `blurred`, `noisy`, `clipped`, `blocky`, `border_band`, `saturation` or `seam`."""
    low, high = config.sharpness if is_local else config.sharpness_global
    if found.sharpness < low:
        return "blurred", f"sharpness is {found.sharpness:.2f} of the source's, the least is {low}"
    if found.sharpness > high:
        return "noisy", f"sharpness is {found.sharpness:.2f} times the source's, the most is {high}"
    clipped = config.max_clipped if is_local else config.max_clipped_global
    if found.clipped > clipped:
        return "clipped", f"{found.clipped:.3f} more of the picture is black or white, the most is {clipped}"
    if found.blockiness > config.max_blockiness:
        return "blocky", f"blockiness grew by {found.blockiness:.2f}, the most is {config.max_blockiness}"
    if found.band > config.max_band:
        return "border_band", f"a uniform band at a border is {found.band:.3f} of the shorter side wide"
    if found.chroma > config.max_chroma_global or (is_local and abs(found.chroma) > config.max_chroma):
        return "saturation", f"mean chroma changed by {found.chroma:+.1f}"
    if found.seam > config.max_seam:
        return "seam", f"a straight faint step is {found.seam:.2f} of the shorter side long"
    return None


def _clipped(pixels: Pixels) -> Mask:
    return np.asarray((pixels.min(2) >= 254) | (pixels.max(2) <= 1))


def blockiness(luma: Array) -> float:
    """Excess of the differences across the strongest 8 px grid over the others, 0 for none; the larger of both axes.

    Differences are clipped at 16 levels and medians are taken over grid lines, so that objects do not count.
    """
    found = 0.0
    for steps in (
        np.abs(np.diff(luma, axis=1)).clip(max=16).mean(0),
        np.abs(np.diff(luma, axis=0)).clip(max=16).mean(1),
    ):
        if len(steps) < 32:
            continue
        phases = [float(np.median(steps[phase::8])) for phase in range(8)]
        ordered = sorted(phases)
        found = max(found, (ordered[-1] + 0.5) / (ordered[3] + 0.5) - 1)
    return found


def border_band(pixels: Pixels) -> int:
    """Width in px of the widest band of one colour along a border."""
    return max(_uniform_lines(np.rot90(pixels, turn)) for turn in range(4))


def _uniform_lines(pixels: Pixels) -> int:
    """How many rows from the top are of one and the same colour."""
    rows = pixels.astype(np.float32)
    close = (rows.std(1).max(1) < FLAT) & (np.abs(rows.mean(1) - rows[0].mean(0)).max(1) < FLAT)
    return int(np.argmin(close)) if not close.all() else len(rows)


def longest_seam(pair: Pair) -> int:
    """Px of the longest straight horizontal or vertical line across which the difference of the pair jumps a little.

    A rectangle that was pasted or regenerated differs by a nearly constant offset inside, so the signed difference has
    a step at its border where the source has no edge. Strong steps are edges of objects and do not count.
    """
    signed = np.asarray(cv2.GaussianBlur(pair.target_gray - pair.source_gray, (0, 0), 0.8), np.float32)
    return max(_longest_step(signed, pair.source_gray), _longest_step(signed.T, pair.source_gray.T))


def _longest_step(signed: Array, source: Array) -> int:
    """Px of the longest vertical line of steps."""
    width = signed.shape[1]
    if width < 32:
        return 0
    total = np.cumsum(np.pad(signed, ((0, 0), (1, 0))), axis=1)
    at = np.arange(8, width - 7)

    def means(start: int, stop: int) -> Array:
        """Mean of columns x + start ... x + stop - 1, for x in `at`; a seam lies between x - 1 and x."""
        return np.asarray((total[:, at + stop] - total[:, at + start]) / (stop - start), np.float32)

    step = np.abs(means(1, 5) - means(-5, -1))
    # A step and no slope: either side is level.
    level = np.maximum(np.abs(means(-7, -4) - means(-4, -1)), np.abs(means(4, 7) - means(1, 4)))
    own = np.abs(source[:, at + 1] - source[:, at - 2])
    is_step = (step > FAINT) & (step < PLAIN) & (level < step / 3) & (own < 3 * step)
    lines = cv2.morphologyEx(is_step.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 1), np.uint8))
    return _longest_run(lines)


def _longest_run(lines: Pixels) -> int:
    """Length of the longest run of ones down a column."""
    longest, run = 0, np.zeros(lines.shape[1], np.int64)
    for row in lines:
        run = (run + 1) * row
        longest = max(longest, int(run.max()))
    return longest
