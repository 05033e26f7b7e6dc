"""Where a picture's pixels go: scale to a size, then cut a box out of it. Sizes are (width, height) in pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Scale the upright picture to `scaled`, then keep the box of `width` x `height` whose corner is (left, top).

    It says nothing about the size of the original, so source and target of an edit share one.
    """

    scaled: tuple[int, int]
    width: int
    height: int
    left: int = 0
    top: int = 0

    def __post_init__(self) -> None:
        inside = self.left + self.width <= self.scaled[0] and self.top + self.height <= self.scaled[1]
        if min(self.width, self.height) < 1 or min(self.left, self.top) < 0 or not inside:
            raise ValueError(f"the box of {self} does not lie inside the scaled picture")

    @property
    def box(self) -> tuple[int, int, int, int]:
        """left, top, right, bottom in pixels of the scaled picture."""
        return self.left, self.top, self.left + self.width, self.top + self.height


Fit = Callable[[int, int], Geometry]
"""A rule that tells the geometry from the upright size of the picture: (width, height) -> Geometry."""


def scaled_to(width: int, height: int) -> Geometry:
    """Exactly this size and no crop."""
    return Geometry((width, height), width, height)


def shorter_side(side: int, upscale: bool = False) -> Fit:
    """The whole picture, shorter side `side`; smaller pictures stay as they are unless `upscale`."""

    def fit(width: int, height: int) -> Geometry:
        short = min(width, height)
        if short <= side and not upscale:
            return scaled_to(width, height)
        return scaled_to(max(1, round(width * side / short)), max(1, round(height * side / short)))

    return fit


def longer_side(side: int, upscale: bool = False) -> Fit:
    """The whole picture, longer side `side`; smaller pictures stay as they are unless `upscale`."""

    def fit(width: int, height: int) -> Geometry:
        long = max(width, height)
        if long <= side and not upscale:
            return scaled_to(width, height)
        return scaled_to(max(1, round(width * side / long)), max(1, round(height * side / long)))

    return fit


def cover(width: int, height: int) -> Fit:
    """Fill `width` x `height`: the smallest scale that covers it, and the centre of that."""

    def fit(own_width: int, own_height: int) -> Geometry:
        if own_width * height >= own_height * width:  # wider than the box: heights match, left and right go
            scaled = max(width, round(own_width * height / own_height)), height
        else:
            scaled = width, max(height, round(own_height * width / own_width))
        return Geometry(scaled, width, height, (scaled[0] - width) // 2, (scaled[1] - height) // 2)

    return fit
