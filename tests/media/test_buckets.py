"""Aspect buckets and geometries."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dreamline.media.buckets import ROUNDING, buckets, choose_bucket, choose_pair_bucket
from dreamline.media.config import BucketConfig
from dreamline.media.errors import MediaError
from dreamline.media.geometry import Geometry, cover, longer_side, shorter_side

SIDES = st.integers(1, 6000)
CONFIG = BucketConfig()


def reason_of(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(MediaError) as caught:
        call(*arguments)
    return caught.value.reason


def test_the_buckets_of_a_megapixel() -> None:
    wide = [(1024, 1024), (1088, 960), (1152, 896), (1216, 832), (1344, 768), (1408, 704)]
    assert buckets(CONFIG) == tuple(sorted({*wide, *(s[::-1] for s in wide)}, key=lambda s: s[0] / s[1]))


@given(st.integers(1, 4_000_000), st.sampled_from([1, 8, 16, 64]), st.floats(1, 4))
@settings(max_examples=60, deadline=None)
def test_buckets_keep_their_promises(pixels: int, multiple: int, aspect: float) -> None:
    pixels = min(pixels, 40_000) if multiple == 1 else pixels
    if pixels < multiple**2:
        with pytest.raises(ValueError, match=r"no bucket of .* raise pixels"):
            BucketConfig(pixels=pixels, multiple=multiple, max_aspect=aspect)
        return
    shapes = buckets(BucketConfig(pixels=pixels, multiple=multiple, max_aspect=aspect))
    assert len(set(shapes)) == len(shapes)
    for width, height in shapes:
        assert width % multiple == height % multiple == 0
        assert 0 < width * height <= pixels
        assert max(width, height) <= aspect * min(width, height)
        assert (height, width) in shapes
        if width > height:  # nothing longer would have been allowed
            assert (width + multiple) * height > pixels or width + multiple > aspect * height
    square = isqrt(pixels) // multiple * multiple
    assert (square, square) in shapes


@given(SIDES, SIDES)
@example(270, 675)  # loses exactly the allowed fifth
@settings(max_examples=300, deadline=None)
def test_a_placement_is_the_least_crop_or_a_reason(width: int, height: int) -> None:
    def crop_of(bucket: tuple[int, int]) -> float:
        own, other = width / height, bucket[0] / bucket[1]
        return 1 - min(own, other) / max(own, other)

    least = min(crop_of(bucket) for bucket in buckets(CONFIG))
    allowed = [b for b in buckets(CONFIG) if b[0] <= width and b[1] <= height and crop_of(b) <= 0.2 + ROUNDING]
    if not allowed:
        expected = "crop_too_large" if least > 0.2 + ROUNDING else "too_small"
        assert reason_of(choose_bucket, width, height, CONFIG) == expected
        return
    placement = choose_bucket(width, height, CONFIG)
    assert placement.bucket in buckets(CONFIG)
    assert placement.scale <= 1
    assert placement.cropped <= 0.2 + ROUNDING
    assert placement.cropped == pytest.approx(crop_of(placement.bucket), abs=1e-9)
    assert placement.cropped == pytest.approx(min(map(crop_of, allowed)), abs=1e-9)
    geometry = placement.geometry
    assert geometry.scaled[0] <= width
    assert geometry.scaled[1] <= height
    # The picture keeps its aspect to the pixel.
    assert abs(geometry.scaled[0] / placement.scale - width) <= 0.5 / placement.scale + 1e-6
    assert abs(geometry.scaled[1] / placement.scale - height) <= 0.5 / placement.scale + 1e-6


def test_refusals_say_which_bound() -> None:
    assert reason_of(choose_bucket, 3000, 1000, CONFIG) == "crop_too_large"
    assert reason_of(choose_bucket, 1000, 1000, CONFIG) == "too_small"
    larger = choose_bucket(1000, 1000, BucketConfig(max_upscale=1.1))
    assert (larger.bucket, larger.cropped) == ((1024, 1024), 0)
    # An exact fit that would enlarge gives way to a small crop that does not.
    near = choose_bucket(1216, 895, CONFIG)
    assert near.bucket == (1216, 832)
    assert near.scale == 1


def test_source_and_target_share_one_placement() -> None:
    placement = choose_pair_bucket((1600, 1200), (3200, 2400), CONFIG)
    assert placement == choose_bucket(1600, 1200, CONFIG) == choose_pair_bucket((3200, 2400), (1600, 1200), CONFIG)
    assert choose_pair_bucket((1600, 1200), (3200, 2401), CONFIG).bucket == placement.bucket  # rounding
    assert reason_of(choose_pair_bucket, (1600, 1200), (1600, 1203), CONFIG) == "geometry_differs"
    assert reason_of(choose_pair_bucket, (1600, 1200), (1200, 1600), CONFIG) == "geometry_differs"
    assert reason_of(choose_pair_bucket, (400, 300), (1600, 1200), CONFIG) == "too_small"


@given(SIDES, SIDES, st.integers(1, 2000), st.integers(1, 2000))
@settings(max_examples=200, deadline=None)
def test_fits(width: int, height: int, side: int, other: int) -> None:
    short = shorter_side(side)(width, height)
    assert min(short.scaled) == min(side, width, height)
    assert (short.width, short.height) == short.scaled
    long = longer_side(side)(width, height)
    assert max(long.scaled) == min(side, max(width, height))
    assert max(longer_side(side, upscale=True)(width, height).scaled) == side
    assert min(shorter_side(side, upscale=True)(width, height).scaled) == side
    box = cover(side, other)(width, height)
    assert (box.width, box.height) == (side, other)
    assert box.width == box.scaled[0] or box.height == box.scaled[1]


def test_a_box_outside_is_an_error() -> None:
    with pytest.raises(ValueError, match="inside"):
        Geometry((10, 10), 8, 8, left=3)
    assert np.array_equal(Geometry((10, 10), 8, 6, 2, 1).box, (2, 1, 10, 7))
