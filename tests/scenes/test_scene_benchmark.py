import json

import numpy as np
import pytest

from dreamline.scenes.benchmark import (
    EditItem,
    GenerationItem,
    edit_items,
    generation_items,
    score_edit,
    score_generation,
)
from dreamline.scenes.captions import available_categories
from dreamline.scenes.detector import detect_many
from dreamline.scenes.edits import available_edit_types
from dreamline.scenes.facts import Facts, ObjectFact
from dreamline.scenes.render import render
from dreamline.scenes.sampling import has_held_out_pair, looks_of, split_of
from dreamline.scenes.world import Scene, SceneObject, World

NUM = 240


@pytest.fixture(scope="module")
def prompts(world: World) -> list[GenerationItem]:
    return generation_items(world, NUM, seed=0)


@pytest.fixture(scope="module")
def edits(world: World) -> list[EditItem]:
    return edit_items(world, NUM, seed=0)


def seen(scenes: list[Scene], world: World) -> list[Scene]:
    return detect_many(np.stack([render(scene, world) for scene in scenes]), world)


def test_own_clean_renders_score_one_in_every_category(world: World, prompts: list[GenerationItem]) -> None:
    found = seen([item.reference for item in prompts], world)
    assert {item.category for item in prompts} == set(available_categories(world))
    assert [item.id for item, scene in zip(prompts, found, strict=True) if not score_generation(item, scene)] == []


def test_own_clean_targets_score_one_in_every_type(world: World, edits: list[EditItem]) -> None:
    found = seen([item.target for item in edits], world)
    assert {item.type for item in edits} == set(available_edit_types(world))
    assert [item.id for item, scene in zip(edits, found, strict=True) if not score_edit(item, scene).both] == []


def test_pictures_of_other_prompts_score_near_zero(world: World, prompts: list[GenerationItem]) -> None:
    """Over all pairs of different items: below 4 % in all, below 10 % in every category.

    Not zero: 'a circle' is also true of the picture for 'a red circle'.
    """
    found = seen([item.reference for item in prompts], world)
    true = np.array([[score_generation(item, scene) for scene in found] for item in prompts], float)
    np.fill_diagonal(true, np.nan)
    assert np.nanmean(true) < 0.04
    for category in available_categories(world):
        assert np.nanmean(true[[item.category == category for item in prompts]]) < 0.1


def test_targets_of_other_edits_score_near_zero(world: World, edits: list[EditItem]) -> None:
    found = seen([item.target for item in edits], world)
    scores = [score_edit(edits[i], found[i - shift]).both for i in range(NUM) for shift in (1, 7, 60)]
    assert np.mean(scores) < 0.01


def test_an_unedited_source_is_preserved_but_never_followed(world: World, edits: list[EditItem]) -> None:
    for item, scene in zip(edits, seen([item.source for item in edits], world), strict=True):
        score = score_edit(item, scene)
        assert not score.followed
        assert score.preserved
        assert not score.both


def test_texts_are_of_the_eval_split(world: World, prompts: list[GenerationItem], edits: list[EditItem]) -> None:
    texts = [item.prompt for item in prompts] + [item.instruction for item in edits]
    assert {split_of(text, world) for text in texts} == {"eval"}


def test_held_out_items_are_flagged_and_others_are_clean(
    world: World, prompts: list[GenerationItem], edits: list[EditItem]
) -> None:
    for item in prompts:
        assert has_held_out_pair(looks_of(item.reference), world) == item.held_out
        assert has_held_out_pair(item.facts.looks, world) == item.held_out
    for edit in edits:
        pairs = [has_held_out_pair(looks_of(scene), world) for scene in (edit.source, edit.target)]
        assert any(pairs) == edit.held_out
    paired = [item.held_out for item in prompts if item.category in ("position", "color_attribution")]
    assert np.mean(paired) == pytest.approx(0.2)
    assert 0.15 < np.mean([edit.held_out for edit in edits]) < 0.25


def test_items_are_balanced_unique_and_prefix_stable(world: World, prompts: list[GenerationItem]) -> None:
    categories = available_categories(world)
    counts = [sum(item.category == category for item in prompts) for category in categories]
    assert set(counts) == {NUM // len(categories)}
    assert len({item.id for item in prompts}) == len({item.seed for item in prompts}) == NUM
    assert generation_items(world, 30, seed=0) == prompts[:30]
    assert edit_items(world, 30, seed=0) == edit_items(world, 40, seed=0)[:30]
    assert [item.prompt for item in generation_items(world, 30, seed=1)] != [item.prompt for item in prompts[:30]]
    assert all(0 <= item.seed < 2**31 for item in prompts)


def test_prompts_rarely_repeat(prompts: list[GenerationItem]) -> None:
    assert len({item.prompt for item in prompts}) > 0.95 * NUM


def test_json_round_trip(prompts: list[GenerationItem], edits: list[EditItem]) -> None:
    for item in prompts:
        assert GenerationItem.from_json(json.loads(json.dumps(item.to_json()))) == item
    for edit in edits:
        assert EditItem.from_json(json.loads(json.dumps(edit.to_json()))) == edit


def test_editing_is_judged_in_two_halves() -> None:
    circle, square = SceneObject("circle", "red", 0, 0), SceneObject("square", "blue", 1, 1)
    moved = SceneObject("circle", "red", 0, 1)
    item = EditItem(
        "x",
        "move",
        "move the circle to the top right",
        Scene((circle, square), "white"),
        Scene((moved, square), "white"),
        False,
        0,
    )
    copied = score_edit(item, Scene((circle, moved, square), "white"))  # the old one is still there
    assert (copied.followed, copied.preserved) == (False, True)
    spoilt = score_edit(item, Scene((moved, SceneObject("square", "green", 1, 1)), "white"))
    assert (spoilt.followed, spoilt.preserved) == (True, False)
    extra = score_edit(item, Scene((moved, square, SceneObject("circle", "red", 1, 0)), "white"))
    assert (extra.followed, extra.preserved) == (True, False)
    darker = score_edit(item, Scene((moved, square), "black"))
    assert (darker.followed, darker.preserved) == (True, False)


def test_a_stated_background_is_judged() -> None:
    facts = Facts((ObjectFact("circle"),), background="white")
    item = GenerationItem("x", "single_object", "a circle on a white background", facts, Scene((), "white"), False, 0)
    circle = (SceneObject("circle", "red", 0, 0),)
    assert score_generation(item, Scene(circle, "white"))
    assert not score_generation(item, Scene(circle, "black"))
