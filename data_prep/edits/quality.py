"""Damage in the target that the source does not have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.edits.config import Quality
from data_prep.edits.pair import Pair, channel_max, gray, mean_in
from data_prep.edits.verdict import Array, Mask, Pixels, Problem
from data_prep.edits.vocabulary import Scope

FAINT, PLAIN = 2.5, 32.0  # levels: a seam's step is stronger than the first, an object's edge than the second
ACROSS = 0.9  # share of a row that must leave the colour of a band where the band ends
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
    sharpness = [_sharpness(luma, where) for luma in (pair.source_gray, pair.target_gray)]
    chroma = [mean_in(np.asarray(cv2.magnitude(*cv2.split(x)[1:])), where) for x in (pair.source_lab, pair.target_lab)]
    clipped = [mean_in(_clipped(pixels), where) for pixels in (pair.source, pair.target)]
    return Damage(
        sharpness=(sharpness[1] + 4) / (sharpness[0] + 4),
        clipped=float(clipped[1][0] - clipped[0][0]),
        blockiness=blockiness(gray(pair.full_target)) - blockiness(gray(pair.full_source)),
        band=border_band(pair.source, pair.target) / side,
        chroma=float(chroma[1][0] - chroma[0][0]),
        seam=longest_seam(pair) / side,
    )


def quality_problems(found: Damage, scope: Scope, config: Quality) -> Iterator[Problem]:
    """Reason and detail: `blurred`, `noisy`, `clipped`, `blocky`, `border_band`, `saturation` or `seam`.

    The looks of a new background are free, and so are steps in a new style.
    """
    is_local, is_free = scope == "local", scope in ("background", "unknown")
    low, high = config.sharpness if is_local else config.sharpness_global
    if not is_free and found.sharpness < low:
        yield "blurred", f"sharpness is {found.sharpness:.2f} of the source's, the least is {low}"
    if not is_free and found.sharpness > high:
        yield "noisy", f"sharpness is {found.sharpness:.2f} times the source's, the most is {high}"
    clipped = config.max_clipped if is_local else config.max_clipped_global
    if not is_free and found.clipped > clipped:
        yield "clipped", f"{found.clipped:.3f} more of the picture is black or white, the most is {clipped}"
    if found.blockiness > config.max_blockiness:
        yield "blocky", f"blockiness grew by {found.blockiness:.2f}, the most is {config.max_blockiness}"
    if found.band > config.max_band:
        yield "border_band", f"a uniform band at a border is {found.band:.3f} of the shorter side wide"
    if found.chroma > config.max_chroma_global or (is_local and abs(found.chroma) > config.max_chroma):
        yield "saturation", f"mean chroma changed by {found.chroma:+.1f}"
    if is_local and found.seam > config.max_seam:
        yield "seam", f"a straight faint step is {found.seam:.2f} of the shorter side long"


def _sharpness(luma: Array, where: Mask) -> float:
    """Variance of the Laplacian."""
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_32F), mask=where.view(np.uint8))
    return float(deviation[0, 0]) ** 2


def _clipped(pixels: Pixels) -> Array:
    """1 where all channels are black or all are white, else 0."""
    dark = cv2.inRange(pixels, (0, 0, 0), (1, 1, 1))
    light = cv2.inRange(pixels, (254, 254, 254), (255, 255, 255))
    return np.asarray((dark | light) / np.float32(255), np.float32)


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


def border_band(source: Pixels, target: Pixels) -> int:
    """Width in px of the widest band of one colour along a border of the target that the source lacks."""
    return max(_band_above(np.rot90(source, turn), np.rot90(target, turn)) for turn in range(4))


def _band_above(source: Pixels, target: Pixels) -> int:
    """How many rows from the top are of one colour, not so in the source, and end in an edge all across; else 0.

    A plain background does not end so: where an object begins, the rest of the row is still background.
    """
    colour = target[0].astype(np.float32).mean(0)
    for number, row in enumerate(target[: len(target) // 2].astype(np.float32)):
        if row.std(0).max() > FLAT or np.abs(row.mean(0) - colour).max() > FLAT:
            inside = target[min(number + 2, len(target) - 1)].astype(np.float32)
            ends = (np.abs(inside - colour).max(1) > 2 * FLAT).mean() > ACROSS
            is_new = number > 0 and np.abs(source[:number].astype(np.float32) - colour).mean() > 2 * FLAT
            return number if ends and is_new else 0
    return 0


def longest_seam(pair: Pair) -> int:
    """Px of the longest straight horizontal or vertical line across which the difference of the pair jumps a little.

    A rectangle that was pasted or regenerated differs by a nearly constant offset inside, so the signed difference has
    a step at its border where the source has no edge. Strong steps are edges of objects and do not count.
    """
    signed = np.asarray(cv2.GaussianBlur(pair.signed, (0, 0), 0.8), np.float32)
    transposed = cv2.transpose(signed), cv2.transpose(pair.source_gray)
    return max(_longest_step(signed, pair.source_gray), _longest_step(*transposed))


def _longest_step(signed: Array, source: Array) -> int:
    """Px of the longest vertical line of steps of `signed` [H, W, 3]; `source` [H, W]."""
    width = signed.shape[1]
    if width < 32:
        return 0

    def means(start: int, length: int) -> Array:
        """Mean of columns x + start ... x + start + length - 1 for x = 8 ... width - 8; a seam is left of column x."""
        blurred = cv2.blur(signed, (length, 1), anchor=(0, 0))
        return np.asarray(blurred[:, 8 + start : width - 7 + start], np.float32)

    step = channel_max(np.abs(means(1, 4) - means(-5, 4)))
    # A step and no slope: either side is level.
    level = channel_max(np.maximum(np.abs(means(-7, 3) - means(-4, 3)), np.abs(means(4, 3) - means(1, 3))))
    own = np.abs(source[:, 9 : width - 6] - source[:, 6 : width - 9])
    is_step = (step > FAINT) & (step < PLAIN) & (level < step / 3) & (own < 3 * step)
    return _longest_run(cv2.morphologyEx(is_step.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 1), np.uint8)))


def _longest_run(lines: Pixels) -> int:
    """Length of the longest run of ones down a column."""
    row = np.arange(len(lines))[:, None]
    last_zero = np.maximum.accumulate(np.where(lines == 0, row, -1), axis=0)
    return int((row - last_zero).max())
