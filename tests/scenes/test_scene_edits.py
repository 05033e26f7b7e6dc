import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamline.scenes.edits import (
    EDIT_TYPES,
    WORDINGS,
    NoEdit,
    available_edit_types,
    references,
    sample_edit,
)
from dreamline.scenes.sampling import rng_for, sample_scene, split_of
from dreamline.scenes.world import BACKGROUNDS, STYLE_WORDS, Scene, SceneObject, World, cell_name


def changed_cells(source: Scene, target: Scene) -> int:
    cells = {item.cell for picture in (source, target) for item in picture.objects}
    return sum(source.at(*cell) != target.at(*cell) for cell in cells)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_each_type_changes_what_it_says_and_nothing_else(world: World, split: str) -> None:
    cells = {"move": 2, "background": 0}
    for kind in available_edit_types(world):
        for index in range(60):
            edit = sample_edit(world, rng_for(0, index, "test"), split, kind)
            source, target = edit.source, edit.target
            assert edit.type == kind
            assert split_of(edit.instruction, world) == split
            assert changed_cells(source, target) == cells.get(kind, 1)
            assert (source.background != target.background) == (kind == "background")
            styles = [sorted(item.style for item in picture.objects) for picture in (source, target)]
            assert (styles[0] != styles[1]) == (kind == "style") or kind in ("add", "remove")
            assert len(target.objects) - len(source.objects) == {"add": 1, "remove": -1}.get(kind, 0)
            for picture in (source, target):
                assert world.min_objects <= len(picture.objects) <= world.max_objects


def test_the_demo_has_six_types_and_richer_worlds_eight(demo: World, rich: World) -> None:
    assert available_edit_types(demo) == EDIT_TYPES[:6]
    assert available_edit_types(rich) == EDIT_TYPES
    with pytest.raises(NoEdit, match="resize"):
        sample_edit(demo, rng_for(0, 0, "test"), "train", "resize")


def test_types_are_equally_frequent(demo: World) -> None:
    drawn = [sample_edit(demo, rng_for(0, index, "test"), "train").type for index in range(3000)]
    for kind in available_edit_types(demo):
        assert 400 < drawn.count(kind) < 600


def test_every_type_has_at_least_four_wordings() -> None:
    assert set(WORDINGS) == set(EDIT_TYPES)
    assert all(len(set(wordings)) >= 4 for wordings in WORDINGS.values())
    assert "make {ref} {value}" in WORDINGS["recolour"]


def test_a_reader_of_the_instruction_finds_the_one_object(world: World) -> None:
    places = {cell_name(row, col, world.grid): (row, col) for row in range(world.grid) for col in range(world.grid)}
    for index in range(1000):
        edit = sample_edit(world, rng_for(0, index, "test"), "train", "remove")
        reference, _, place = edit.instruction.removesuffix(" corner").partition(" in the ")
        words = set(reference.split())
        meant = [
            item
            for item in edit.source.objects
            if words & {*world.colours} <= {item.colour}
            and words & {*world.shapes} <= {item.shape}
            and words & {*world.sizes} <= {item.size}
            and words & {*STYLE_WORDS.values()} <= {STYLE_WORDS[item.style]}
            and (not place or places[place] == item.cell)
        ]
        assert meant == [item for item in edit.source.objects if item not in edit.target.objects]


@given(st.integers(0, 10**6))
def test_references_are_unambiguous(index: int) -> None:
    world = World()
    scene = sample_scene(world, rng_for(1, index, "test"), "eval")
    said = [phrase for item in scene.objects for phrase in references(item, scene, world)]
    assert len(said) == len(set(said))


def test_references_by_each_attribute(demo: World) -> None:
    circle, square = SceneObject("circle", "red", 0, 0), SceneObject("square", "red", 0, 1)
    pair = Scene((circle, square), "white")
    assert references(circle, pair, demo) == ["the circle", "the red circle"]
    twin = Scene((circle, SceneObject("circle", "red", 1, 1)), "white")
    assert references(circle, twin, demo) == []


def test_twins_are_named_by_their_place(demo: World) -> None:
    found = 0
    for index in range(3000):
        edit = sample_edit(demo, rng_for(0, index, "test"), "train", "remove")
        removed = next(item for item in edit.source.objects if item not in edit.target.objects)
        if not references(removed, edit.source, demo):
            assert any(f"in the {place}" in edit.instruction for place in ("top", "bottom"))
            found += 1
    assert found > 20


def test_every_background_is_asked_for_in_both_splits() -> None:
    world = World()
    for value in BACKGROUNDS:
        splits = {split_of(wording.format(value=value), world) for wording in WORDINGS["background"]}
        assert splits == {"train", "eval"}


def test_objects_are_named_by_size_and_style_where_only_these_tell_them_apart(rich: World) -> None:
    one = SceneObject("star", "red", 0, 0, "small", style="outline")
    other = SceneObject("star", "red", 1, 1, "large", style="outline")
    third = SceneObject("star", "red", 1, 0, "large")
    said = references(one, Scene((one, other, third), "white"), rich)
    assert "the small star" in said
    assert "the small outlined red star" in said
    assert "the outlined star" not in said
    assert "the large outlined shape" in references(other, Scene((one, other, third), "white"), rich)


def test_larger_is_said_only_where_it_means_one_size(rich: World) -> None:
    three = rich.model_copy(update={"sizes": ("small", "normal", "large"), "radius": 7.0})
    for world, expected in ((rich, {"larger", "smaller"}), (three, set[str]())):
        edits = [sample_edit(world, rng_for(0, index, "test"), "train", "resize") for index in range(200)]
        assert {edit.instruction.split()[-1] for edit in edits} & {"larger", "smaller"} == expected
        for edit in edits:
            if edit.instruction.endswith("larger"):
                assert ([item.size for item in edit.target.objects].count("large")) > (
                    [item.size for item in edit.source.objects].count("large")
                )
