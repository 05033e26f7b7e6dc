"""How well a local edit left the rest alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from data_prep.edits.config import Background
from data_prep.edits.pair import Pair, mean_in
from data_prep.edits.verdict import Array, Mask, Problem

_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # Wang et al. 2004


def ssim_map(first: Array, second: Array) -> Array:
    """Structural similarity per px of two luma pictures 0..255, Gaussian window of 11 px and sigma 1.5."""

    def blur(image: Array) -> Array:
        return np.asarray(cv2.GaussianBlur(image, (11, 11), 1.5), np.float32)

    mean_1, mean_2 = blur(first), blur(second)
    square_1, square_2, product = mean_1 * mean_1, mean_2 * mean_2, mean_1 * mean_2
    variance = blur(first * first) + blur(second * second) - square_1 - square_2
    covariance = blur(first * second) - product
    return np.asarray(
        (2 * product + _C1) * (2 * covariance + _C2) / ((square_1 + square_2 + _C1) * (variance + _C2)), np.float32
    )


@dataclass(frozen=True)
class Preservation:
    """Likeness of the two pictures where nothing should change."""

    area: float  # share of the picture that is background
    ssim: float
    psnr: float  # dB, at most 60
    lab_shift: float  # length of the mean CIELAB difference


def preservation(pair: Pair, background: Mask) -> Preservation:
    """Measure inside `background` [H, W], which must not be empty."""
    mean_square = max(float(mean_in(pair.signed**2, background).mean()), 255**2 / 10**6)
    return Preservation(
        area=float(background.mean()),
        ssim=float(mean_in(ssim_map(pair.source_gray, pair.target_gray), background)[0]),
        psnr=float(10 * np.log10(255**2 / mean_square)),
        lab_shift=float(np.linalg.norm(mean_in(pair.lab_signed, background))),
    )


def background_problems(kept: Preservation, config: Background) -> Iterator[Problem]:
    """Reason and detail: `background_colour`, `background_structure` or `background_noise`."""
    if kept.area < config.min_area:
        return
    if kept.lab_shift > config.max_lab_shift:
        yield "background_colour", f"the background's mean colour moved by {kept.lab_shift:.1f} CIELAB"
    if kept.ssim < config.min_ssim:
        yield "background_structure", f"SSIM of the background is {kept.ssim:.3f}, the least is {config.min_ssim}"
    if kept.psnr < config.min_psnr:
        yield "background_noise", f"PSNR of the background is {kept.psnr:.1f} dB, the least is {config.min_psnr}"
