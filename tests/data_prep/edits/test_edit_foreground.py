"""Foreground masks follow UniWorld-V1's procedure, and travel as PNG."""

import numpy as np
import pytest

from data_prep.edits.config import Foreground
from data_prep.edits.foreground import decode_mask, encode_mask, foreground_mask

CONFIG = Foreground()


def picture(*boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    pixels = np.full((64, 96, 3), 100, np.uint8)
    for top, left, height, width, level in boxes:
        pixels[top : top + height, left : left + width] = level
    return pixels


def test_difference_from_the_threshold_on() -> None:
    for level, seen in ((118, True), (117, False)):
        mask = foreground_mask([picture()], picture((8, 8, 20, 20, level)), CONFIG)
        assert mask is not None
        assert mask.mean() == pytest.approx(400 / mask.size if seen else 1.0, rel=0.05)


def test_small_pieces_are_dropped_and_gaps_closed() -> None:
    target = picture((8, 8, 20, 20, 200), (50, 80, 8, 8, 200), (15, 8, 2, 20, 100))
    mask = foreground_mask([picture()], target, CONFIG)
    assert mask is not None
    assert mask[10, 10]
    assert mask[15, 15]  # closed
    assert not mask[52, 82]  # 64 px are fewer than 0.3 of all


def test_nothing_means_everywhere_and_hardly_anything_is_no_edit() -> None:
    assert foreground_mask([picture()], picture(), CONFIG).all()
    assert foreground_mask([picture()], picture((5, 5, 2, 2, 250)), CONFIG) is None


def test_several_references_intersect() -> None:
    target = picture((8, 8, 20, 20, 200), (8, 40, 20, 20, 200))
    mask = foreground_mask([picture(), picture((8, 8, 20, 20, 200))], target, CONFIG)
    assert mask is not None
    assert mask[15, 50]
    assert not mask[15, 15]


def test_png_round_trip() -> None:
    mask = np.random.default_rng(0).random((37, 53)) < 0.3
    content = encode_mask(mask)
    assert content == encode_mask(mask)
    assert content.startswith(b"\x89PNG")
    np.testing.assert_array_equal(decode_mask(content), mask)
    for broken in (b"", b"no picture"):
        with pytest.raises(ValueError, match="no picture"):
            decode_mask(broken)
