"""The one canonical, complete description of a scene."""

from __future__ import annotations

from dreamline.scenes.world import Scene, SceneObject, World, cell_name, name_look


def describe(scene: Scene, world: World) -> str:
    """Every fact of a scene in a fixed order: background, then cell by cell.

    For example `white background. top left: red circle. top right: empty. bottom left: empty. bottom right: empty.`
    Sizes and styles are named where the world has several of them: `small outlined red circle`.
    """
    parts = [f"{scene.background} background"]
    for row in range(world.grid):
        for col in range(world.grid):
            parts.append(f"{cell_name(row, col, world.grid)}: {_describe_object(scene.at(row, col), world)}")
    return ". ".join(parts) + "."


def _describe_object(item: SceneObject | None, world: World) -> str:
    if item is None:
        return "empty"
    size = item.size if len(world.sizes) > 1 else None
    style = item.style if len(world.styles) > 1 else None
    return name_look(item.shape, item.colour, size, style)
