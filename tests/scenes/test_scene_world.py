import json
from itertools import combinations

import numpy as np
import pytest
from pydantic import ValidationError

from dreamline.scenes.describe import describe
from dreamline.scenes.sampling import rng_for, sample_scene
from dreamline.scenes.world import BACKGROUNDS, COLOURS, Scene, SceneObject, World, cell_name


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"radius": 8.5}, "radius"),
        ({"sizes": ("normal", "large")}, "radius"),
        ({"jitter": 0.25}, "jitter"),
        ({"max_objects": 5}, "grid"),
        ({"min_objects": 3, "max_objects": 2}, "min_objects"),
        ({"shapes": ("circle", "circle")}, "shapes"),
        ({"backgrounds": ()}, "backgrounds"),
        ({"colors": ("red", "green")}, "colors"),
    ],
)
def test_impossible_worlds_are_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        World(**wrong)


def test_colours_and_backgrounds_are_far_apart() -> None:
    colours = [np.array(rgb) / 255 for rgb in COLOURS.values()]
    backgrounds = [np.array(rgb) / 255 for rgb in BACKGROUNDS.values()]
    assert min(np.linalg.norm(a - b) for a, b in combinations(colours, 2)) > 0.4
    assert min(np.linalg.norm(a - b) for a in colours for b in backgrounds) > 0.5


def test_a_scene_sorts_its_objects_and_refuses_two_in_one_cell() -> None:
    low = SceneObject("circle", "red", 1, 0)
    high = SceneObject("square", "blue", 0, 1)
    assert Scene((low, high), "white") == Scene((high, low), "white")
    with pytest.raises(ValueError, match="one cell"):
        Scene((low, SceneObject("square", "blue", 1, 0)), "white")


def test_jitter_does_not_count_for_equality() -> None:
    assert SceneObject("circle", "red", 1, 0, dx=0.5) == SceneObject("circle", "red", 1, 0)


def test_json_round_trip(world: World) -> None:
    for index in range(50):
        scene = sample_scene(world, rng_for(0, index, "test"), "eval")
        again = Scene.from_json(json.loads(json.dumps(scene.to_json())))
        assert again == scene
        assert [(item.dx, item.dy) for item in again.objects] == [(item.dx, item.dy) for item in scene.objects]


def test_cell_names_are_distinct() -> None:
    for grid in (2, 3):
        assert len({cell_name(row, col, grid) for row in range(grid) for col in range(grid)}) == grid**2
    assert cell_name(1, 0, 2) == "bottom left"
    assert cell_name(1, 1, 3) == "centre"


def test_description_is_canonical(demo: World) -> None:
    scene = Scene((SceneObject("square", "blue", 1, 1), SceneObject("circle", "red", 0, 0)), "white")
    assert describe(scene, demo) == (
        "white background. top left: red circle. top right: empty. bottom left: empty. bottom right: blue square."
    )


def test_description_tells_scenes_apart(world: World) -> None:
    scenes = {sample_scene(world, rng_for(0, index, "test"), "eval") for index in range(500)}
    assert len({describe(scene, world) for scene in scenes}) == len(scenes)
