from itertools import combinations
from math import pi

import numpy as np
import pytest

from dreamline.scenes.render import RING_HOLE, render, stamp
from dreamline.scenes.sampling import rng_for, sample_scene
from dreamline.scenes.world import BACKGROUNDS, COLOURS, SHAPES, Scene, SceneObject, World


def test_empty_scene_is_its_background(demo: World) -> None:
    image = render(Scene((), "grey"), demo)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert (image == BACKGROUNDS["grey"]).all()


def test_objects_stand_in_their_cells(demo: World) -> None:
    image = render(Scene((SceneObject("square", "red", 0, 1), SceneObject("circle", "blue", 1, 0)), "white"), demo)
    assert tuple(image[8, 24]) == COLOURS["red"]
    assert tuple(image[24, 8]) == COLOURS["blue"]
    assert (image[:16, :16] == 255).all()
    assert (image[16:, 16:] == 255).all()


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", pi),
        ("square", 4.0),
        ("triangle", 2.0),
        ("diamond", 2.0),
        ("ring", pi * (1 - RING_HOLE**2)),
        ("cross", 4 * 0.36 * (2 - 0.36)),
        ("star", 10 * 0.45 * np.sin(pi / 5) / 2),
    ],
)
@pytest.mark.parametrize("radius", [6.8, 50.0])
def test_coverage_is_the_area_of_the_shape(shape: str, area: float, radius: float) -> None:
    _, _, alpha = stamp(shape, "filled", radius, radius + 2, radius + 2)
    assert alpha.sum() == pytest.approx(area * radius**2, rel=0.03)


def test_demo_shapes_are_clearly_different_at_32_px(demo: World) -> None:
    drawn = {
        shape: render(Scene((SceneObject(shape, "blue", 0, 0),), "white"), demo)[:16, :16].astype(int)
        for shape in demo.shapes
    }
    for a, b in combinations(drawn, 2):
        differing = np.abs(drawn[a] - drawn[b]).max(2) > 100
        assert differing.sum() >= 20


def test_edges_are_anti_aliased(demo: World) -> None:
    image = render(Scene((SceneObject("circle", "blue", 0, 0),), "black"), demo)
    assert len(np.unique(image[:, :, 2])) > 5


@pytest.mark.parametrize("factor", [2, 4])
def test_larger_renders_average_to_the_small_one(world: World, factor: int) -> None:
    for index in range(20):
        scene = sample_scene(world, rng_for(0, index, "test"), "eval")
        small = render(scene, world).astype(float)
        side = world.size
        large = render(scene, world, side * factor).reshape(side, factor, side, factor, 3).mean((1, 3))
        assert np.abs(small - large).mean() < 1.5


def test_any_resolution(rich: World) -> None:
    scene = Scene(tuple(SceneObject(shape, "red", i // 3, i % 3, "large") for i, shape in enumerate(SHAPES)), "white")
    for side in (33, 100, 1024):
        assert render(scene, rich, side).shape == (side, side, 3)
