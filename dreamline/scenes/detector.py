"""Reading a picture back into a scene without any network.

Background: the palette entry nearest to the median of the border. Then cell by cell: pixels that leave the background
are an object; its colour is the palette entry c whose line background -> c explains these pixels best (anti-aliased
edges lie on that line); the position on the line is the object's coverage, compared by soft intersection over union
with every shape, exactly rendered in every style and size at every half-pixel shift. Specks are ignored; an object that
no colour or no shape explains, or two shapes about equally well, is reported as `unknown`, which the judge never
accepts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image

from dreamline.scenes.render import Array, stamp
from dreamline.scenes.world import BACKGROUNDS, COLOURS, SIZE_FACTORS, UNKNOWN, Scene, SceneObject, World

Images = npt.NDArray[np.uint8]

CONTRAST = 0.24  # RGB distance (unit cube) from the background at which a pixel counts as foreground
SPECK = 0.15  # foreground areas below this share of the smallest shape's area are specks
MAX_COLOUR_ERROR = 0.2  # root mean square RGB distance of foreground pixels from the line of their colour
MAX_BACKGROUND_ERROR = 0.25  # RGB distance of the border's median from a background's colour
MIN_OVERLAP = {"filled": 0.85, "outline": 0.5}  # least soft IoU with a shape; thin lines lose more of it to blur
MAX_AMBIGUITY = 0.75  # most misfit (1 - IoU) of the best shape, relative to the second best; above, it is neither
SHIFT = 1.0  # how far off its place (beyond the world's jitter) an object is still found, px
SCALES = (0.9, 1.0, 1.1)  # how much too small or too large
CHUNK = 256  # images at a time, to bound memory


def detect(image: Images, world: World) -> Scene:
    """Read one picture.

    Args:
        image: RGB uint8 [side, side, 3]; another side than the world's is resampled first.

    Raises:
        ValueError: not a square RGB uint8 picture.
    """
    return detect_many(image[None], world)[0]


def detect_many(images: Images, world: World) -> list[Scene]:
    """Read many pictures of one size: uint8 [N, side, side, 3] -> N scenes. See `detect`."""
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"need RGB uint8 pictures [N, side, side, 3], got {images.dtype} {list(images.shape)}")
    if images.shape[1] != world.size:
        images = np.stack([_resample(image, world.size) for image in images]) if len(images) else images
    return [
        scene
        for start in range(0, len(images), CHUNK)
        for scene in _detect_chunk((images[start : start + CHUNK] / 255).astype(np.float32), world)
    ]


def _resample(image: Images, side: int) -> Images:
    kind = Image.Resampling.BOX if image.shape[0] > side else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((side, side), kind))


def _detect_chunk(images: Array, world: World) -> list[Scene]:
    border = np.concatenate([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], axis=1)
    ground = np.median(border, axis=1).astype(np.float32)  # [N, 3]
    backgrounds = _name_backgrounds(ground, world)
    offsets = _cells(images, world) - ground[:, None, None]  # [N, cells, px, 3]
    distance = np.einsum("ncpk,ncpk->ncp", offsets, offsets)
    foreground = distance > CONTRAST**2
    bank = _bank(world)
    image_of, cell_of = np.nonzero(foreground.sum(2) >= bank.min_area)
    if not len(image_of):
        return [Scene((), name) for name in backgrounds]
    colours, coverage = _colour(
        offsets[image_of, cell_of], distance[image_of, cell_of], foreground[image_of, cell_of], ground[image_of], world
    )
    overlap, pose = bank.match(coverage)  # [objects, styles, shapes, sizes]
    found: list[list[SceneObject]] = [[] for _ in images]
    for i, (image, cell, colour) in enumerate(zip(image_of, cell_of, colours, strict=True)):
        style, shape, size = np.unravel_index(overlap[i].argmax(), overlap.shape[1:])
        *_, second, first = np.sort(overlap[i, style].max(1))
        is_clear = first >= MIN_OVERLAP[world.styles[style]] and 1 - first <= MAX_AMBIGUITY * (1 - second)
        name = world.shapes[shape] if is_clear else UNKNOWN
        dx, dy = bank.shifts[pose[i, style, shape, size] % len(bank.shifts)]
        row, col = divmod(int(cell), world.grid)
        found[image].append(SceneObject(name, colour, row, col, world.sizes[size], dx, dy, world.styles[style]))
    return [Scene(tuple(objects), name) for objects, name in zip(found, backgrounds, strict=True)]


def _name_backgrounds(ground: Array, world: World) -> list[str]:
    palette = np.array([BACKGROUNDS[name] for name in world.backgrounds], np.float32) / 255
    error = np.linalg.norm(ground[:, None] - palette, axis=2)
    nearest = error.argmin(1)
    return [
        world.backgrounds[best] if error[i, best] <= MAX_BACKGROUND_ERROR else UNKNOWN for i, best in enumerate(nearest)
    ]


def _cells(images: Array, world: World) -> Array:
    """[N, S, S, 3] -> [N, grid * grid, cell * cell, 3], row by row."""
    start, stop = world.origin, world.origin + world.grid * world.cell
    inner = images[:, start:stop, start:stop].reshape(len(images), world.grid, world.cell, world.grid, world.cell, 3)
    return inner.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), world.grid**2, world.cell**2, 3)


def _colour(
    offsets: Array, distance: Array, foreground: npt.NDArray[np.bool_], ground: Array, world: World
) -> tuple[list[str], Array]:
    """The colour of each object and its coverage.

    Args:
        offsets: pixels minus background [M, px, 3]; `distance` their squared lengths [M, px].
        foreground: [M, px]; ground: [M, 3].

    Returns:
        M colour names, and coverage in [0, 1], float32 [M, px].
    """
    palette = np.array([COLOURS[name] for name in world.colours], np.float32) / 255
    lines = palette - ground[:, None]  # [M, K, 3]
    lengths = np.einsum("mkc,mkc->mk", lines, lines)[:, :, None]
    along = np.matmul(lines, offsets.transpose(0, 2, 1))  # [M, K, px]
    position = np.clip(along / lengths, 0, 1)
    error = distance[:, None] - 2 * position * along + position**2 * lengths
    error = np.einsum("mkp,mp->mk", error, foreground.astype(np.float32)) / foreground.sum(1)[:, None]
    best = error.argmin(1)
    every = np.arange(len(best))
    names = [world.colours[k] if error[i, k] <= MAX_COLOUR_ERROR**2 else UNKNOWN for i, k in enumerate(best)]
    return names, position[every, best]


@dataclass(frozen=True)
class _Bank:
    """Every shape that a cell can hold, exactly rendered."""

    coverage: Array  # [styles * shapes * sizes * poses, px]; a pose is a scale and a shift
    layout: tuple[int, int, int, int]  # the four factors
    shifts: list[tuple[float, float]]  # (dx, dy) px
    min_area: float  # px

    def match(self, coverage: Array) -> tuple[Array, npt.NDArray[np.int64]]:
        """Soft IoU ab / (aa + bb - ab) of M objects with everything, and the pose in which it is best.

        Both are [M, styles, shapes, sizes].
        """
        both = coverage @ self.coverage.T
        alone = (coverage**2).sum(1)[:, None] + (self.coverage**2).sum(1)
        overlap = (both / (alone - both)).reshape(len(coverage), *self.layout)
        return overlap.max(4), overlap.argmax(4)


@lru_cache(maxsize=4)
def _bank(world: World) -> _Bank:
    reach = world.jitter + SHIFT
    steps = [float(step) for step in np.arange(-reach, reach + 0.25, 0.5)]
    shifts = list(product(steps, steps))
    coverage = np.stack(
        [
            _in_cell(shape, style, scale * world.radius * SIZE_FACTORS[size], dx, dy, world.cell).ravel()
            for style, shape, size, scale, (dx, dy) in product(world.styles, world.shapes, world.sizes, SCALES, shifts)
        ]
    )
    layout = (len(world.styles), len(world.shapes), len(world.sizes), len(SCALES) * len(shifts))
    return _Bank(coverage, layout, shifts, SPECK * float(coverage.sum(1).min()))


def _in_cell(shape: str, style: str, radius: float, dx: float, dy: float, side: int) -> Array:
    """The coverage of a shape at (dx, dy) from the middle of a cell, cut off at the cell's edges: [side, side]."""
    left, top, alpha = stamp(shape, style, radius, side / 2 + dx, side / 2 + dy)
    cell = np.zeros((side, side), np.float32)
    window = cell[top : top + alpha.shape[0], left : left + alpha.shape[1]]
    window[:] = alpha[: window.shape[0], : window.shape[1]]
    return cell
