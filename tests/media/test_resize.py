"""Resizing stays close to a Lanczos of the full picture, whatever the factor."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dreamline.media.resize import resize


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(np.float64) - other) ** 2)))


@pytest.fixture(scope="module")
def grainy() -> NDArray[np.uint8]:
    """Noise of the spectrum of photographs, with grain and print: what skipped pixels show in."""
    rng = np.random.default_rng(3)
    radius = np.hypot(np.fft.fftfreq(600)[:, None], np.fft.rfftfreq(800)[None])
    radius[0, 0] = np.inf
    planes = []
    for _ in range(3):
        waves = (rng.standard_normal(radius.shape) + 1j * rng.standard_normal(radius.shape)) / radius**1.15
        plane = np.fft.irfft2(waves, (600, 800))
        planes.append(128 + 35 * plane / plane.std() + 4 * rng.standard_normal(plane.shape))
    pixels = np.ascontiguousarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8))
    for line in range(8):
        cv2.putText(pixels, "The quick brown fox", (10, 60 + 60 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (9, 9, 9), 1)
    return pixels


@pytest.mark.parametrize("factor", [1.34, 1.5, 1.7, 1.9])
def test_smoothing_is_closer_to_lanczos_than_areas_and_than_the_bare_cubic(
    factor: float, grainy: NDArray[np.uint8]
) -> None:
    size = (round(800 / factor), round(600 / factor))
    wanted = np.asarray(Image.fromarray(grainy).resize(size, Image.Resampling.LANCZOS))
    found = psnr(resize(grainy, size), wanted)
    assert found > psnr(cv2.resize(grainy, size, interpolation=cv2.INTER_AREA), wanted) - 0.2
    assert found > psnr(cv2.resize(grainy, size, interpolation=cv2.INTER_CUBIC), wanted) + 2


def test_one_four_and_no_channels(grainy: NDArray[np.uint8]) -> None:
    four = np.concatenate([grainy, grainy[..., :1]], axis=2)
    small = resize(four, (500, 375))
    assert np.array_equal(small[..., :3], resize(grainy, (500, 375)))
    assert np.array_equal(small[..., 3], resize(np.ascontiguousarray(grainy[..., 0]), (500, 375)))
    assert resize(grainy, (800, 600)) is grainy
