import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from dreamline.scenes.detector import detect, detect_many
from dreamline.scenes.render import render
from dreamline.scenes.sampling import rng_for, sample_scene
from dreamline.scenes.world import COLOURS, SHAPES, STYLES, UNKNOWN, Scene, SceneObject, World

Images = npt.NDArray[np.uint8]


def samples(world: World, num: int) -> list[Scene]:
    return [sample_scene(world, rng_for(3, index, "test"), "eval") for index in range(num)]


def accuracy(scenes: list[Scene], images: Images, world: World) -> float:
    return float(np.mean([a == b for a, b in zip(scenes, detect_many(images, world), strict=True)]))


def blurred(image: Images, radius: float) -> Images:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def test_every_clean_demo_scene_is_read_exactly(demo: World) -> None:
    scenes = samples(demo, 2000)
    assert accuracy(scenes, np.stack([render(scene, demo) for scene in scenes]), demo) == 1.0


def test_every_object_alone_is_read_exactly(world: World) -> None:
    scenes = [
        Scene((SceneObject(shape, colour, row, col, size, style=style),), background)
        for shape in world.shapes
        for colour in world.colours
        for row, col in ((0, 0), (1, 0), (world.grid - 1, world.grid - 1))
        for size in world.sizes
        for background in world.backgrounds
        for style in world.styles
    ]
    assert accuracy(scenes, np.stack([render(scene, world) for scene in scenes]), world) == 1.0


EVERYTHING = World(size=64, max_objects=4, shapes=SHAPES, sizes=("small", "large"), styles=STYLES, radius=10, jitter=2)
RICHER = [
    EVERYTHING,
    EVERYTHING.model_copy(update={"grid": 3, "max_objects": 5, "radius": 7.2, "jitter": 1.0}),
    World(size=64, grid=3, max_objects=9, shapes=("star", "cross"), radius=9, jitter=0.5),
]


@pytest.mark.parametrize("world", RICHER)
def test_richer_worlds_round_trip(world: World) -> None:
    scenes = samples(world, 600)
    assert accuracy(scenes, np.stack([render(scene, world) for scene in scenes]), world) >= 0.99


def test_an_empty_scene_is_read_as_empty(world: World) -> None:
    for background in world.backgrounds:
        found = detect(render(Scene((), background), world), world)
        assert found.objects == ()
        assert found.background == background


def test_other_resolutions_are_read(demo: World) -> None:
    for side in (64, 100, 128, 512):
        scenes = samples(demo, 40)
        assert accuracy(scenes, np.stack([render(scene, demo, side) for scene in scenes]), demo) == 1.0


@pytest.mark.parametrize(("blur", "noise", "least"), [(0.5, 0, 1.0), (1.0, 0, 0.98), (0, 10, 1.0), (0.5, 10, 0.99)])
def test_mild_blur_and_noise_do_not_matter(demo: World, blur: float, noise: float, least: float) -> None:
    scenes = samples(demo, 400)
    rng = rng_for(0, 0, "noise")
    images = np.stack([blurred(render(scene, demo), blur) for scene in scenes])
    images = np.clip(images + rng.normal(0, noise, images.shape), 0, 255).round().astype(np.uint8)
    assert accuracy(scenes, images, demo) >= least


@pytest.mark.parametrize(("blur", "noise"), [(0.5, 0), (0, 10)])
def test_mild_blur_and_noise_in_the_rich_world(rich: World, blur: float, noise: float) -> None:
    scenes = samples(rich, 200)
    rng = rng_for(0, 0, "noise")
    images = np.stack([blurred(render(scene, rich), blur) for scene in scenes])
    images = np.clip(images + rng.normal(0, noise, images.shape), 0, 255).round().astype(np.uint8)
    assert accuracy(scenes, images, rich) >= 0.98


@pytest.mark.parametrize(("dx", "dy", "radius"), [(1.0, 0.0, 6.8), (-0.5, 0.5, 6.8), (0.0, 0.0, 6.2), (0.0, 0.0, 7.3)])
def test_slightly_misplaced_or_missized_objects_are_read(demo: World, dx: float, dy: float, radius: float) -> None:
    drawn_in = demo.model_copy(update={"radius": radius})
    for shape in demo.shapes:
        scene = Scene((SceneObject(shape, "red", 0, 1, dx=dx, dy=dy),), "white")
        assert detect(render(scene, drawn_in), demo) == scene


def test_specks_are_no_objects(demo: World) -> None:
    scene = Scene((SceneObject("circle", "red", 0, 0),), "white")
    image = render(scene, demo)
    image[24:27, 24:27] = COLOURS["blue"]
    image[4, 28] = 0
    assert detect(image, demo) == scene


@pytest.mark.parametrize("shape", ["star", "diamond", "cross", "ring"])
def test_shapes_that_are_not_in_the_world_are_unknown(demo: World, shape: str) -> None:
    found = detect(render(Scene((SceneObject(shape, "red", 1, 0),), "white"), demo), demo)
    assert [item.shape for item in found.objects] == [UNKNOWN]


def test_blobs_are_unknown(demo: World) -> None:
    y, x = np.mgrid[:32, :32] - 7.5
    blob = np.clip(1.3 * np.exp(-(x**2 + y**2) / 2 / 4.5**2), 0, 1)[:, :, None]
    image = (255 + blob * (np.array(COLOURS["red"]) - 255)).round().astype(np.uint8)
    assert [item.shape for item in detect(image, demo).objects] == [UNKNOWN]


def test_half_a_circle_half_a_triangle_is_unknown(demo: World) -> None:
    circle = render(Scene((SceneObject("circle", "red", 0, 0),), "white"), demo).astype(float)
    triangle = render(Scene((SceneObject("triangle", "red", 0, 0),), "white"), demo)
    found = detect(((circle + triangle) / 2).astype(np.uint8), demo)
    assert [item.shape for item in found.objects] == [UNKNOWN]


def test_two_coloured_and_foreign_coloured_objects_are_unknown(demo: World) -> None:
    image = render(Scene((SceneObject("square", "red", 0, 0),), "white"), demo)
    half = image.copy()
    half[:8, :16][image[:8, :16, 1] < 128] = COLOURS["blue"]
    assert [item.colour for item in detect(half, demo).objects] == [UNKNOWN]
    cyan = image.copy()
    cyan[image[:, :, 1] < 128] = (0, 230, 230)
    assert UNKNOWN in {value for item in detect(cyan, demo).objects for value in (item.colour, item.shape)}


def test_a_foreign_background_is_unknown(demo: World) -> None:
    assert detect(np.full((32, 32, 3), (200, 60, 200), np.uint8), demo).background == UNKNOWN


def test_pure_noise_is_no_clear_scene(demo: World) -> None:
    images = rng_for(0, 0, "noise").integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    for scene in detect_many(images, demo):
        assert all(UNKNOWN in (item.shape, item.colour) for item in scene.objects)


def test_one_by_one_is_as_all_at_once(world: World) -> None:
    images = np.stack([render(scene, world) for scene in samples(world, 300)])
    together = detect_many(images, world)
    assert [detect(image, world) for image in images[:40]] == together[:40]
    assert detect_many(images[280:], world) == together[280:]
    assert detect_many(images[:0], world) == []


@pytest.mark.parametrize(
    "image",
    [np.zeros((32, 32), np.uint8), np.zeros((32, 16, 3), np.uint8), np.zeros((32, 32, 3), np.float32)],
)
def test_anything_but_square_rgb_is_refused(demo: World, image: Images) -> None:
    with pytest.raises(ValueError, match="RGB uint8"):
        detect(image, demo)
