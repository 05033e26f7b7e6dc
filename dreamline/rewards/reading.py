"""What can be read in each cell of a scene, as class numbers: the labels of the reading task."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dreamline.scenes.world import Scene, World

IGNORE = -100  # class number of what cannot be read, such as the size of nothing


def facets(world: World) -> Mapping[str, int]:
    """Number of classes of everything that a cell shows. Class 0 of shape and colour is 'nothing here'."""
    return {
        "shape": 1 + len(world.shapes),
        "colour": 1 + len(world.colours),
        "size": len(world.sizes),
        "background": len(world.backgrounds),
        "style": len(world.styles),
    }


def labels(scene: Scene, world: World) -> NDArray[np.int64]:
    """Classes [cells, facets] of one scene, cells in reading order, facets in the order of `facets`."""
    background = world.backgrounds.index(scene.background)
    table = np.empty((world.grid, world.grid, 5), np.int64)
    table[:] = (0, 0, IGNORE, background, IGNORE)
    for item in scene.objects:
        shape, colour = world.shapes.index(item.shape), world.colours.index(item.colour)
        size, style = world.sizes.index(item.size), world.styles.index(item.style)
        table[item.row, item.col] = (1 + shape, 1 + colour, size, background, style)
    return table.reshape(-1, 5)
