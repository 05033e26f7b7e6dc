"""The one canonical, complete description of a scene."""

from __future__ import annotations

from dreamline.scenes.world import Scene, SceneObject, World, cell_name


def describe(scene: Scene, world: World) -> str:
    """Every fact of a scene in a fixed order: background, style (where the world has several), then cell by cell.

    For example `white background. top left: red circle. top right: empty. bottom left: empty. bottom right: empty.`
    """
    parts = [f"{scene.background} background"]
    if len(world.styles) > 1:
        parts.append(f"{scene.style} style")
    for row in range(world.grid):
        for col in range(world.grid):
            parts.append(f"{cell_name(row, col, world.grid)}: {_describe_object(scene.at(row, col), world)}")
    return ". ".join(parts) + "."


def _describe_object(item: SceneObject | None, world: World) -> str:
    if item is None:
        return "empty"
    size = f"{item.size} " if len(world.sizes) > 1 else ""
    return f"{size}{item.colour} {item.shape}"
