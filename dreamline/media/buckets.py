"""Aspect buckets: the shapes of training batches, and which of them a picture goes to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from dreamline.media.config import BucketConfig
from dreamline.media.errors import MediaError
from dreamline.media.geometry import Geometry, cover


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

    Of buckets with the same shorter side only the longest is kept. Sorted from the tallest to the widest.

    Raises:
        ValueError: the budget is too small for a single bucket.
    """
    step = config.multiple
    longest: dict[int, int] = {}  # shorter side -> longer side
    for short in range(step, int(config.pixels**0.5) + 1, step):
        long = min(config.pixels // short, int(short * config.max_aspect)) // step * step
        # A bucket that is shorter than what the next shorter side allows would only waste pixels.
        if long >= short and config.pixels // short >= long and long * short * 8 >= config.pixels * 7:
            longest[short] = long
    if not longest:
        raise ValueError(f"no bucket has {config.pixels} pixels with sides that are multiples of {step}")
    shapes = {(long, short) for short, long in longest.items()} | set(longest.items())
    return tuple(sorted(shapes, key=lambda shape: (shape[0] / shape[1], shape)))


def choose_bucket(width: int, height: int, config: BucketConfig) -> Placement:
    """The bucket that crops least (of equals: that enlarges least) for a picture of this upright size.

    Raises:
        MediaError: `crop_too_large` or `too_small`.
    """
    raise NotImplementedError


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
    raise NotImplementedError
