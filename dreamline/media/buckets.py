"""Aspect buckets: the shapes of training batches, and which of them a picture goes to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import isqrt

from dreamline.media.config import BucketConfig
from dreamline.media.errors import MediaError
from dreamline.media.geometry import Geometry, cover

ROUNDING = 1e-9  # a crop of exactly the bound is allowed; no two crops of whole pixels lie this close


@dataclass(frozen=True)
class Placement:
    """How a picture gets into its bucket."""

    geometry: Geometry  # width and height are the bucket's
    cropped: float  # share of the picture that is lost, in [0, 1)
    scale: float  # factor of the resize; above 1 the picture is enlarged

    @property
    def bucket(self) -> tuple[int, int]:
        """(width, height) of the bucket in pixels."""
        return self.geometry.width, self.geometry.height


@cache
def buckets(config: BucketConfig) -> tuple[tuple[int, int], ...]:
    """All (width, height) with sides that are multiples, at most `pixels` pixels and aspect within the bound.

    The largest square, and of those with one shorter side the longest. From the tallest to the widest.
    """
    step = config.multiple
    square = isqrt(config.pixels) // step * step
    longest: dict[int, int] = {}  # shorter side -> longer side; ascending, so the longest stays
    for long in range(square, config.pixels // step + 1, step):
        short = min(config.pixels // long // step * step, long)
        if long <= config.max_aspect * short:
            longest[short] = long
    shapes = {(square, square)}.union(*({(long, short), (short, long)} for short, long in longest.items()))
    return tuple(sorted(shapes, key=lambda shape: shape[0] / shape[1]))


def choose_bucket(width: int, height: int, config: BucketConfig) -> Placement:
    """The bucket that crops least (of equals: that enlarges least) for a picture of this upright size.

    Raises:
        MediaError: `crop_too_large` or `too_small`.
    """
    placements = [_place(width, height, bucket) for bucket in buckets(config)]
    fitting = [p for p in placements if p.cropped <= config.max_crop + ROUNDING]
    if not fitting:
        least = min(p.cropped for p in placements)
        raise MediaError("crop_too_large", f"{width} x {height} loses {least:.0%}, more than {config.max_crop:.0%}")
    allowed = [p for p in fitting if p.scale <= config.max_upscale]
    if not allowed:
        least = min(p.scale for p in fitting)
        raise MediaError("too_small", f"{width} x {height} needs a factor of {least:.2f}, over {config.max_upscale:g}")
    return min(allowed, key=lambda p: (p.cropped, p.scale))


def choose_pair_bucket(
    source: tuple[int, int], target: tuple[int, int], config: BucketConfig, tolerance: float = 1.0
) -> Placement:
    """The one placement that both pictures of an edit take; they may differ in size but not in aspect.

    Args:
        source, target: upright (width, height).
        tolerance: how far the smaller picture may be off the larger one's aspect, in its own pixels (rounding).

    Raises:
        MediaError: `geometry_differs`, `crop_too_large` or `too_small` (judged on the smaller picture).
    """
    small, large = sorted((source, target))
    factor = max(small[0] / large[0], small[1] / large[1])
    off = max(abs(large[0] * factor - small[0]), abs(large[1] * factor - small[1]))
    if off > tolerance:
        raise MediaError("geometry_differs", f"source {source[0]} x {source[1]}, target {target[0]} x {target[1]}")
    return choose_bucket(*small, config)


def _place(width: int, height: int, bucket: tuple[int, int]) -> Placement:
    geometry = cover(*bucket)(width, height)
    scale = max(bucket[0] / width, bucket[1] / height)
    kept = bucket[0] * bucket[1] / (scale * scale * width * height)
    return Placement(geometry, max(0.0, 1.0 - kept), scale)
