"""The scene benchmark: held-out prompts and edits with exact, strict scores.

Items are a pure function of (world, num, seed), and shorter lists are beginnings of longer ones. Prompts and
instructions belong to the "eval" split. Where several objects' attributes are stated, every fifth item (`held_out`)
combines a pair of (colour, shape) that never meets in a training scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dreamline.scenes.captions import Caption, available_categories, sample_captioned_scene
from dreamline.scenes.edits import Edit, NoEdit, available_edit_types, sample_edit
from dreamline.scenes.facts import Facts, satisfies
from dreamline.scenes.sampling import has_held_out_pair, held_out_pairs, looks_of, rng_for, stable_hash
from dreamline.scenes.world import Scene, World

HELD_OUT_EVERY = 5
PAIRED_CATEGORIES = ("position", "color_attribution")  # whose prompts can state a pair of (colour, shape)
_TRIES = 3000
_TRIES_FOR_NEW_TEXT = 50


@dataclass(frozen=True)
class GenerationItem:
    """A prompt to draw. `seed` is that of the initial noise (0 <= seed < 2**31), so that models can be paired."""

    id: str
    category: str
    prompt: str
    facts: Facts
    reference: Scene  # one scene that satisfies the facts
    held_out: bool
    seed: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dumps`."""
        return asdict(self) | {"facts": self.facts.to_json(), "reference": self.reference.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GenerationItem:
        """Inverse of `to_json`."""
        nested = {"facts": Facts.from_json(value["facts"]), "reference": Scene.from_json(value["reference"])}
        return cls(**{**value, **nested})


@dataclass(frozen=True)
class EditItem:
    """An edit to carry out on the rendered source. `seed` as in `GenerationItem`."""

    id: str
    type: str
    instruction: str
    source: Scene
    target: Scene
    held_out: bool
    seed: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dumps`."""
        return asdict(self) | {"source": self.source.to_json(), "target": self.target.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> EditItem:
        """Inverse of `to_json`."""
        nested = {"source": Scene.from_json(value["source"]), "target": Scene.from_json(value["target"])}
        return cls(**{**value, **nested})


@dataclass(frozen=True)
class EditScore:
    """`followed`: the commanded change is there. `preserved`: everything else is as it was."""

    followed: bool
    preserved: bool

    @property
    def both(self) -> bool:
        """The edit succeeded."""
        return self.followed and self.preserved


def generation_items(world: World, num: int, seed: int) -> list[GenerationItem]:
    """`num` prompts, the world's categories in turn; prompts repeat only where a category runs out of new ones."""
    categories = available_categories(world)
    seen: set[str] = set()
    items = []
    for index in range(num):
        category = categories[index % len(categories)]
        rng = rng_for(seed, index, "benchmark/generation")
        held_out = category in PAIRED_CATEGORIES and _is_held_out_turn(index // len(categories), world)
        scene, drawn = _draw_caption(world, rng, category, held_out, seen)
        seen.add(drawn.text)
        name = f"{category}-{index:05d}"
        items.append(GenerationItem(name, category, drawn.text, drawn.facts, scene, held_out, noise_seed(name)))
    return items


def edit_items(world: World, num: int, seed: int) -> list[EditItem]:
    """`num` edits, the world's edit types in turn."""
    types = available_edit_types(world)
    items = []
    for index in range(num):
        kind = types[index % len(types)]
        rng = rng_for(seed, index, "benchmark/edit")
        held_out = _is_held_out_turn(index // len(types), world)
        drawn = _draw_edit(world, rng, kind, held_out)
        name = f"{kind}-{index:05d}"
        items.append(EditItem(name, kind, drawn.instruction, drawn.source, drawn.target, held_out, noise_seed(name)))
    return items


def noise_seed(name: str) -> int:
    """The seed of an item's initial noise, 0 <= seed < 2**31: a function of its id alone."""
    return stable_hash("noise:" + name) % 2**31


def score_generation(item: GenerationItem, scene: Scene) -> bool:
    """Whether the scene is exactly what the prompt states; see `facts.satisfies`."""
    return satisfies(scene, item.facts)


def score_edit(item: EditItem, scene: Scene) -> EditScore:
    """Compare a detected scene with the target, apart for what the edit changes and what it must leave.

    `followed` looks at the cells and the background that differ between source and target; `preserved` at all
    others. So an unedited source is preserved but not followed, and a move must also vacate its old cell.
    """
    before, after = item.source, item.target
    cells = {thing.cell for picture in (before, after, scene) for thing in picture.objects}
    checks = [(before.at(*cell), after.at(*cell), scene.at(*cell)) for cell in cells]
    parts: list[tuple[object, object, object]] = [
        *checks,
        (before.background, after.background, scene.background),
    ]
    return EditScore(
        followed=all(found == new for old, new, found in parts if old != new),
        preserved=all(found == new for old, new, found in parts if old == new),
    )


def _is_held_out_turn(turn: int, world: World) -> bool:
    return bool(held_out_pairs(world)) and turn % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def _draw_caption(
    world: World, rng: np.random.Generator, category: str, held_out: bool, seen: set[str]
) -> tuple[Scene, Caption]:
    fitting = 0
    for _ in range(_TRIES):
        scene, drawn = sample_captioned_scene(world, rng, "eval", category)
        # What is not stated must not be a held-out pair either: the reference of an ordinary item is ordinary.
        fits = (
            has_held_out_pair(drawn.facts.looks, world) if held_out else not has_held_out_pair(looks_of(scene), world)
        )
        fitting += fits
        if fits and (drawn.text not in seen or fitting > _TRIES_FOR_NEW_TEXT):
            return scene, drawn
    raise LookupError(f"no {category} prompt (held_out={held_out}) in {_TRIES} tries; raise eval_share")


def _draw_edit(world: World, rng: np.random.Generator, kind: str, held_out: bool) -> Edit:
    for _ in range(_TRIES):
        drawn = sample_edit(world, rng, "eval", kind)
        if held_out == any(has_held_out_pair(looks_of(scene), world) for scene in (drawn.source, drawn.target)):
            return drawn
    raise NoEdit(f"no {kind} edit (held_out={held_out}) in {_TRIES} tries; raise eval_share")
