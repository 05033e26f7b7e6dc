import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamline.scenes.captions import (
    CATEGORIES,
    NoCaption,
    available_categories,
    caption,
    categories_of,
    parse,
    sample_captioned_scene,
)
from dreamline.scenes.facts import Facts, ObjectFact, satisfies
from dreamline.scenes.sampling import rng_for, sample_scene, split_of
from dreamline.scenes.world import SHAPES, UNKNOWN, Scene, SceneObject, World

TWO_RED_CIRCLES = ObjectFact("circle", "red", count=2)
RED_CIRCLE = ObjectFact("circle", "red")
BLUE_SQUARE = ObjectFact("square", "blue")


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("split", ["train", "eval"])
def test_prompts_are_true_and_read_back(world: World, category: str, split: str) -> None:
    if category not in available_categories(world):
        pytest.skip("the demo has one size and one style")
    for index in range(150):
        scene, drawn = sample_captioned_scene(world, rng_for(0, index, "test"), split, category)
        assert drawn.category == category
        assert category in categories_of(scene, world)
        assert satisfies(scene, drawn.facts)
        assert parse(drawn.text, world) == drawn.facts
        assert split_of(drawn.text, world) == split
        assert Facts.from_json(json.loads(json.dumps(drawn.facts.to_json()))) == drawn.facts


@pytest.mark.parametrize("category", CATEGORIES[:6])
def test_every_category_has_many_wordings(demo: World, category: str) -> None:
    wordings: dict[Facts, set[str]] = {}
    for index in range(3000):
        _, drawn = sample_captioned_scene(demo, rng_for(0, index, "test"), "train", category)
        wordings.setdefault(drawn.facts, set()).add(drawn.text)
    assert max(len(texts) for texts in wordings.values()) >= 5


def test_every_scene_with_objects_has_a_prompt(world: World) -> None:
    for index in range(500):
        rng = rng_for(0, index, "test")
        scene = sample_scene(world, rng, "train")
        assert satisfies(scene, caption(scene, world, rng, "train").facts)


def test_categories_are_equally_frequent(demo: World) -> None:
    drawn = [sample_captioned_scene(demo, rng_for(0, index, "test"), "train")[1].category for index in range(3000)]
    assert available_categories(demo) == CATEGORIES[:6]
    for category in available_categories(demo):
        assert 400 < drawn.count(category) < 600


def test_a_category_that_does_not_fit_is_refused(demo: World) -> None:
    one = Scene((SceneObject("circle", "red", 0, 0),), "white")
    with pytest.raises(NoCaption, match="single_object"):
        caption(one, demo, rng_for(0, 0, "test"), "train", "position")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("a red circle to the left of a blue square", Facts((RED_CIRCLE, BLUE_SQUARE), "left")),
        ("A red circle  to the left of a blue square.", Facts((RED_CIRCLE, BLUE_SQUARE), "left")),
        ("a red circle and a blue square", Facts((RED_CIRCLE, BLUE_SQUARE))),
        ("a blue triangle on a white background", Facts((ObjectFact("triangle", "blue"),), background="white")),
        ("a photo of three squares", Facts((ObjectFact("square", count=3),))),
        (
            "two red circles and an orange square",
            Facts((TWO_RED_CIRCLES, ObjectFact("square", "orange"))),
        ),
        ("a circle above a square", Facts((ObjectFact("circle"), ObjectFact("square")), "above")),
    ],
)
def test_parse_reads_well_known_prompts(demo: World, text: str, facts: Facts) -> None:
    assert parse(text, demo) == facts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "circle",
        "a cat",
        "two circle",
        "a red star",
        "a circle and a cat",
        "two circles left of a square",
        "{}",
    ],
)
def test_parse_refuses_other_texts(demo: World, text: str) -> None:
    assert parse(text, demo) is None


@given(st.text(max_size=60))
def test_parse_survives_any_text(text: str) -> None:
    parse(text, World())


WORDS = ("a", "two", "red", "blue", "circle", "square", "circles", "and", "left of", "on a white background", ",")


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_what_parse_accepts_it_also_understands(text: str) -> None:
    facts = parse(text, World())
    if facts is not None:
        assert sum(fact.count for fact in facts.objects) == sum(
            text.split().count(word) * count for word, count in {"circle": 1, "square": 1, "circles": 2}.items()
        )
        assert (facts.background == "white") == ("white" in text)


def test_parse_knows_style_and_size_of_rich_worlds(rich: World) -> None:
    facts = Facts((ObjectFact("star", "red", "small"),), background="grey", style="outline")
    assert parse("a line drawing of a small red star on a grey background", rich) == facts
    assert parse("a line drawing of a small red star on a grey background", World()) is None
    star = ObjectFact("star", "red", "small", style="outline")
    pair = Facts((star, ObjectFact("circle", "blue", "large")), "left")
    assert parse("a small outlined red star to the left of a large blue circle", rich) == pair
    assert parse("an outlined circle", World()) is None


def test_size_and_style_prompts_state_them_of_every_object(rich: World) -> None:
    assert available_categories(rich) == CATEGORIES
    for index in range(100):
        _, sized = sample_captioned_scene(rich, rng_for(0, index, "test"), "train", "size")
        assert all(fact.size for fact in sized.facts.objects)
        _, styled = sample_captioned_scene(rich, rng_for(0, index, "test"), "train", "style")
        assert all(fact.style for fact in styled.facts.objects)


def test_the_judge_looks_at_size_and_style() -> None:
    star = SceneObject("star", "red", 0, 0, "small", style="outline")
    drawn = Scene((star,), "white")
    assert satisfies(drawn, Facts((ObjectFact("star", size="small", style="outline"),)))
    assert not satisfies(drawn, Facts((ObjectFact("star", size="large"),)))
    assert not satisfies(drawn, Facts((ObjectFact("star", style="filled"),)))
    mixed = Scene((star, SceneObject("star", "red", 0, 1)), "white")
    assert satisfies(drawn, Facts((ObjectFact("star"),), style="outline"))
    assert not satisfies(mixed, Facts((ObjectFact("star", count=2),), style="outline"))


def scene(*objects: tuple[str, str, int, int], background: str = "white") -> Scene:
    return Scene(tuple(SceneObject(*item) for item in objects), background)


def test_the_judge_is_strict() -> None:
    left = Facts((RED_CIRCLE, BLUE_SQUARE), "left")
    circle, square = ("circle", "red", 0, 0), ("square", "blue", 0, 1)
    assert satisfies(scene(circle, square), left)
    assert satisfies(scene(circle, ("square", "blue", 1, 1)), left)  # columns decide
    assert not satisfies(scene(circle, ("square", "blue", 1, 0)), left)  # one column
    assert not satisfies(scene(("circle", "red", 0, 1), ("square", "blue", 0, 0)), left)  # the wrong way round
    assert not satisfies(scene(("circle", "blue", 0, 0), ("square", "red", 0, 1)), left)  # swapped colours
    assert not satisfies(scene(circle, square, ("square", "blue", 1, 1)), left)  # one too many
    assert not satisfies(scene(circle), left)  # one too few


def test_the_judge_counts_exactly() -> None:
    two = Facts((ObjectFact("circle", count=2),))
    assert satisfies(scene(("circle", "red", 0, 0), ("circle", "blue", 0, 1)), two)
    assert not satisfies(scene(("circle", "red", 0, 0)), two)
    assert not satisfies(scene(*(("circle", "red", 0, i) for i in range(3))), two)
    assert not satisfies(scene(("circle", "red", 0, 0), ("square", "blue", 0, 1)), two)


def test_the_judge_finds_the_assignment() -> None:
    facts = Facts((ObjectFact("circle"), RED_CIRCLE))  # the free one must not take the red circle
    assert satisfies(scene(("circle", "red", 0, 0), ("circle", "blue", 0, 1)), facts)
    assert satisfies(scene(("circle", "blue", 0, 0), ("circle", "red", 0, 1)), facts)
    assert not satisfies(scene(("circle", "blue", 0, 0), ("circle", "green", 0, 1)), facts)


def test_the_judge_refuses_unclear_objects_and_wrong_backgrounds() -> None:
    circle = Facts((ObjectFact("circle"),))
    assert satisfies(scene(("circle", "red", 0, 0)), circle)
    assert not satisfies(scene(("circle", UNKNOWN, 0, 0)), circle)
    assert not satisfies(scene(("circle", "red", 0, 0), (UNKNOWN, "red", 1, 1)), circle)
    on_black = Facts((ObjectFact("circle"),), background="black")
    assert not satisfies(scene(("circle", "red", 0, 0)), on_black)
    assert satisfies(scene(("circle", "red", 0, 0), background="black"), on_black)


def test_plural_of_every_shape_reads_back(rich: World) -> None:
    for shape in SHAPES:
        noun = {"cross": "crosses"}.get(shape, shape + "s")
        assert parse(f"four {noun}", rich) == Facts((ObjectFact(shape, count=4),))
