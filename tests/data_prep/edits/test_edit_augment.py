"""Edit types, the way back, two edits as one, and preference pairs."""

import numpy as np
import pytest

from data_prep.edits.augment import EditLink, chain, inverse_link, merged_target
from data_prep.edits.instructions import invert
from data_prep.edits.preference import JudgedEdit, preference_table, preferences
from data_prep.edits.vocabulary import EDIT_TYPES, EditType, edit_type_of, scope_of
from dreamline.scenes.edits import EDIT_TYPES as SCENE_TYPES


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("removal", "remove"),
        ("attribute_modification", "replace"),
        ("color_alter", "recolour"),
        ("textual_change", "text"),
        ("tone_transfer", "global"),
        ("subject-add", "add"),
        ("motion_change", "move"),
        ("Background_Change", "background"),
        ("Relocate an object (change its position/spatial relation)", "move"),
        ("Strong artistic style transfer (e.g., Van Gogh)", "style"),
        ("Replace one object category with another", "replace"),
        ("Add a new object to the scene", "add"),
        ("nobody knows", "other"),
    ],
)
def test_words_of_public_sets(label: str, kind: EditType) -> None:
    assert edit_type_of(label) == kind
    assert edit_type_of(label, "remove the dog") == kind


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        ("Remove the dog from the bench", "remove"),
        ("add a dog", "add"),
        ("swap the dog for a cat", "replace"),
        ("make the car red", "recolour"),
        ("turn it into a watercolor painting", "style"),
        ("change the background to a beach", "background"),
        ("make the sign say HELLO", "text"),
        ("make it a snowy winter evening", "global"),
        ("what if it were taller", "other"),
        (None, "other"),
    ],
)
def test_types_guessed_from_instructions(instruction: str | None, kind: EditType) -> None:
    assert edit_type_of(None, instruction) == kind


def test_types_of_the_scene_world_and_scopes() -> None:
    assert {edit_type_of(name) for name in SCENE_TYPES} <= set(EDIT_TYPES)
    assert edit_type_of("resize") == "move"
    assert {scope_of(kind) for kind in EDIT_TYPES} == {"local", "global", "background", "unknown"}


BOTH_WAYS: list[tuple[str, EditType, str, EditType]] = [
    ("remove the red ball", "remove", "add a red ball", "add"),
    ("remove the owl in the tree", "remove", "add an owl in the tree", "add"),
    ("change the car from red to dark blue", "recolour", "change the car from dark blue to red", "recolour"),
    ("paint the red car blue", "recolour", "paint the blue car red", "recolour"),
    ("replace the cat with a dog", "replace", "replace the dog with a cat", "replace"),
]


@pytest.mark.parametrize(("instruction", "kind", "back", "back_kind"), BOTH_WAYS)
def test_inversion(instruction: str, kind: EditType, back: str, back_kind: EditType) -> None:
    found = invert(f"Please {instruction}.", kind)
    assert found is not None
    assert (found.instruction, found.type) == (back, back_kind)
    again = invert(back, back_kind)
    assert again is not None
    if kind != "remove":  # "from the tree" and "in the tree" both come back as one wording
        assert again.instruction == instruction


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        ("make the car blue", "recolour"),
        ("paint the red and white car blue", "recolour"),
        ("remove the dogs", "remove"),
        ("remove all people", "remove"),
        ("remove the man and his dog", "remove"),
        ("add two dogs", "add"),
        ("add another dog", "add"),
        ("add a hat, then remove the dog", "add"),
        ("add a dog to its left", "add"),
        ("replace it with a dog", "replace"),
        ("make it look like winter", "global"),
        ("turn it into a sketch", "style"),
        ("move the dog to the left", "move"),
    ],
)
def test_inversion_is_refused(instruction: str, kind: EditType) -> None:
    assert invert(instruction, kind) is None


def link(key: str, source: str, target: str, text: str = "add a ball", kind: EditType = "add") -> EditLink:
    return EditLink(key, source, target, text, kind)


def test_links_turn_and_join() -> None:
    back = inverse_link(link("k", "A", "B"))
    assert back == EditLink("k-inverse", "B", "A", "remove the ball", "remove")
    assert inverse_link(link("k", "A", "B", "move the ball", "move")) is None
    both = chain(link("k", "A", "B", "Add a ball."), link("m", "B", "C", "Paint the ball red", "recolour"))
    assert both == EditLink("k-then-m", "A", "C", "Add a ball, then paint the ball red", "other")
    assert chain(link("k", "A", "B"), link("m", "C", "D")) is None
    assert chain(link("k", "A", "B"), link("m", "B", "A")) is None


def test_edits_of_one_source_merge_where_they_lie_apart() -> None:
    source = np.full((64, 64, 3), 90, np.uint8)
    one, two, near = source.copy(), source.copy(), source.copy()
    one[8:20, 8:20], two[40:52, 40:52], near[18:30, 24:36] = 10, 200, 200
    masks = [(target != source).any(2) for target in (one, two, near)]
    merged = merged_target(source, (one, masks[0], "add"), (two, masks[1], "recolour"))
    assert merged is not None
    expected = one.copy()
    expected[40:52, 40:52] = 200
    np.testing.assert_array_equal(merged, expected)
    swapped = merged_target(source, (two, masks[1], "recolour"), (one, masks[0], "add"))
    np.testing.assert_array_equal(merged, swapped)
    assert merged_target(source, (one, masks[0], "add"), (near, masks[2], "add")) is None
    assert merged_target(source, (one, masks[0], "add"), (two, masks[1], "style")) is None
    assert merged_target(source, (one, masks[0], "add"), (two, np.zeros_like(masks[1]), "add")) is None
    assert merged_target(source, (one, masks[0], "add"), (two[1:], masks[1], "add")) is None


def test_rejects_become_preference_pairs() -> None:
    edits = [
        JudgedEdit("a1", "A", "Add a ball", None),
        JudgedEdit("a2", "A", "add the ball.", "shifted"),
        JudgedEdit("a3", "A", "add a ball", "duplicate_edit"),
        JudgedEdit("a0", "A", "add a tree", "shifted"),
        JudgedEdit("b1", "B", "add a ball", "no_change"),
    ]
    found = preferences(edits[::-1])
    assert [(row.accepted, row.rejected, row.reason) for row in found] == [("a1", "a2", "shifted")]
    table = preference_table(found)
    assert table.to_pylist() == [
        {"source_id": "A", "instruction": "Add a ball", "accepted": "a1", "rejected": "a2", "reason": "shifted"}
    ]
    assert preference_table([]).num_rows == 0
