"""Drawing a scene: signed distances, so edges are anti-aliased at any resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import cos, pi, sin
from typing import Any

import numpy as np
import numpy.typing as npt

from dreamline.scenes.world import BACKGROUNDS, COLOURS, SIZE_FACTORS, Scene, World

Array = npt.NDArray[np.float32]
Distances = npt.NDArray[np.floating[Any]]

STROKE = 0.24  # width of an outline, in units of the object's radius
RING_HOLE = 0.4  # radius of the hole of a ring, in the same units

_ARM = 0.36
# Vertices in units of the radius, x to the right, y down.
_POLYGONS: Mapping[str, Sequence[tuple[float, float]]] = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "triangle": ((0, -1), (1, 1), (-1, 1)),
    "diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)),
    "cross": (
        *((-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM)),
        *((_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM)),
    ),
    "star": tuple((r * sin(i * pi / 5), -r * cos(i * pi / 5)) for i in range(10) for r in [0.45 if i % 2 else 1.0]),
}


def render(scene: Scene, world: World, resolution: int | None = None) -> npt.NDArray[np.uint8]:
    """Draw a scene.

    Args:
        resolution: side of the picture in px; the world's own size by default. Everything scales with it.

    Returns:
        RGB picture, uint8 [resolution, resolution, 3].

    Raises:
        KeyError: the scene holds a shape, colour, size or background that nobody can draw.
    """
    side = resolution or world.size
    scale = side / world.size
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = BACKGROUNDS[scene.background]
    for item in scene.objects:
        x, y = world.centre(item.row, item.col)
        radius = world.radius * SIZE_FACTORS[item.size] * scale
        left, top, alpha = stamp(item.shape, item.style, radius, (x + item.dx) * scale, (y + item.dy) * scale)
        window = canvas[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        window += alpha[: window.shape[0], : window.shape[1], None] * (
            np.asarray(COLOURS[item.colour], np.float32) - window
        )
    return np.rint(canvas).astype(np.uint8)


def stamp(shape: str, style: str, radius: float, x: float, y: float) -> tuple[int, int, Array]:
    """The coverage of one shape around (x, y).

    Args:
        radius, x, y: px.

    Returns:
        Left and upper px of the window (not negative) and its coverage in [0, 1], float32 [h, w].
    """
    left, top = max(0, int(x - radius - 1)), max(0, int(y - radius - 1))
    side = int(2 * radius) + 4
    return left, top, _coverage(shape, style, round(radius, 4), round(x - left, 4), round(y - top, 4), side)


@lru_cache(maxsize=8192)
def _coverage(shape: str, style: str, radius: float, x: float, y: float, side: int) -> Array:
    at = np.arange(side) + 0.5
    distance = signed_distance(shape, (at[None, :] - x) / radius, (at[:, None] - y) / radius)
    if style == "outline":  # the band of width STROKE inside the edge
        distance = np.abs(distance + STROKE / 2) - STROKE / 2
    covered: Array = np.clip(0.5 - distance * radius, 0, 1).astype(np.float32)
    covered.flags.writeable = False
    return covered


def signed_distance(shape: str, x: Distances, y: Distances) -> Distances:
    """Distance to the edge of a shape of radius 1 around the origin, negative inside; x and y broadcast.

    Raises:
        KeyError: no such shape.
    """
    if shape == "circle":
        return np.hypot(x, y) - 1
    if shape == "ring":
        middle, half = (1 + RING_HOLE) / 2, (1 - RING_HOLE) / 2
        return np.abs(np.hypot(x, y) - middle) - half
    return _polygon_distance(_POLYGONS[shape], x, y)


def _polygon_distance(vertices: Sequence[tuple[float, float]], x: Distances, y: Distances) -> Distances:
    # https://iquilezles.org/articles/distfunctions2d (polygon): nearest edge, and a sign by crossing number.
    x, y = np.broadcast_arrays(x, y)
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(vertices, (*vertices[1:], vertices[0]), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (wx - along * ex) ** 2 + (wy - along * ey) ** 2)
        if ey:
            inside ^= ((ay <= y) != (by <= y)) & (wx < ex * wy / ey)
    signed: Distances = np.where(inside, -1, 1) * np.sqrt(nearest)
    return signed
