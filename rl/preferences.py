"""Preferences made from scenes: one picture that does what was asked, and pictures with one thing wrong.

Every group depends on (seed, global sample index) alone. Scenes are drawn from the training split of the scene world
itself: labels are exact and there is always a new sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dreamline.scenes.captions import sample_captioned_scene
from dreamline.scenes.edits import Edit, sample_edit
from dreamline.scenes.facts import satisfies
from dreamline.scenes.sampling import pick, place_object, random_look, rng_for
from dreamline.scenes.world import Scene, SceneObject, Split, World

NUM_LOSERS = 2
KINDS_TRIED, DRAWS_PER_KIND = 100, 8
# Binding words to the right object and place is the hard part, and few prompts can be wrong in that way.
SHARES = {"swapped": 4, "moved": 4, "wrong_object": 2}

Cell = tuple[int, int]
Part = Cell | str  # of a scene: an object's cell, or 'background'
Draw = Callable[[], Scene | None]  # a new scene with one fault; None where that cannot be
Spoil = Callable[[Scene, World, np.random.Generator], Scene | None]


@dataclass(frozen=True)
class Preference:
    """A prompt, the scene that fulfils it and scenes that fail in one way each, named in `faults`."""

    prompt: str
    source: Scene | None  # the scene before the edit; None for generation
    winner: Scene
    losers: tuple[Scene, ...]
    faults: tuple[str, ...]


def sample_preference(world: World, seed: int, index: int, split: Split, edit_share: float) -> Preference:
    """Preference group number `index` of a split, an edit with probability `edit_share`."""
    rng = rng_for(seed, index, f"preference-{split}")
    if rng.random() < edit_share:
        return _edit_preference(world, rng, split)
    return _generation_preference(world, rng, split)


def _generation_preference(world: World, rng: np.random.Generator, split: Split) -> Preference:
    winner, caption = sample_captioned_scene(world, rng, split)
    draws = {fault: partial(spoil, winner, world, rng) for fault, spoil in SPOILS.items()}
    losers, faults = _collect(draws, rng, lambda scene: not satisfies(scene, caption.facts))
    return Preference(caption.text, None, winner, losers, faults)


def _edit_preference(world: World, rng: np.random.Generator, split: Split) -> Preference:
    edit = sample_edit(world, rng, split)
    losers, faults = _collect(_wrong_edits(edit, world, rng), rng, lambda scene: scene != edit.target)
    return Preference(edit.instruction, edit.source, edit.target, losers, faults)


def _collect(
    draws: Mapping[str, Draw], rng: np.random.Generator, is_wrong: Callable[[Scene], bool]
) -> tuple[tuple[Scene, ...], tuple[str, ...]]:
    """Different scenes that are wrong indeed; kinds of faults that are possible here are as likely as their share."""
    kinds = [fault for fault in draws for _ in range(SHARES.get(fault, 1))]
    found: dict[Scene, str] = {}
    for _ in range(KINDS_TRIED):
        fault = pick(rng, kinds)
        for _ in range(DRAWS_PER_KIND):
            scene = draws[fault]()
            if scene is not None and scene not in found and is_wrong(scene):
                found[scene] = fault
                break
        if len(found) == NUM_LOSERS:
            return tuple(found), tuple(found.values())
    raise LookupError(
        f"found only {len(found)} of {NUM_LOSERS} wrong scenes; this world leaves too little to get wrong"
    )


# -- one thing wrong in a scene -----------------------------------------------------------------------------------


def _missing(scene: Scene, world: World, rng: np.random.Generator) -> Scene:
    return _without(scene, pick(rng, scene.objects))


def _extra(scene: Scene, world: World, rng: np.random.Generator) -> Scene | None:
    free = _free_cells(scene, world)
    return _with(scene, place_object(random_look(world, rng), *pick(rng, free), world, rng)) if free else None


def _wrong_colour(scene: Scene, world: World, rng: np.random.Generator) -> Scene:
    item = pick(rng, scene.objects)
    return _with(scene, replace(item, colour=_other(world.colours, item.colour, rng)))


def _wrong_shape(scene: Scene, world: World, rng: np.random.Generator) -> Scene:
    item = pick(rng, scene.objects)
    return _with(scene, replace(item, shape=_other(world.shapes, item.shape, rng)))


def _wrong_size(scene: Scene, world: World, rng: np.random.Generator) -> Scene | None:
    item = pick(rng, scene.objects)
    return _with(scene, replace(item, size=_other(world.sizes, item.size, rng))) if len(world.sizes) > 1 else None


def _moved(scene: Scene, world: World, rng: np.random.Generator) -> Scene | None:
    free, item = _free_cells(scene, world), pick(rng, scene.objects)
    if not free:
        return None
    row, col = pick(rng, free)
    return _with(_without(scene, item), replace(item, row=row, col=col))


def _swapped(scene: Scene, world: World, rng: np.random.Generator) -> Scene | None:
    """Two objects exchange colour, shape, place, size or style: what attribution and position prompts are about."""
    if len(scene.objects) < 2:
        return None
    first, second = (scene.objects[i] for i in rng.permutation(len(scene.objects))[:2])
    options = (("colour",), ("shape",), ("row", "col"), *((("size",),) if len(world.sizes) > 1 else ()))
    names = pick(rng, (*options, *((("style",),) if len(world.styles) > 1 else ())))
    return _with(
        _without(scene, first, second),
        replace(first, **{name: getattr(second, name) for name in names}),
        replace(second, **{name: getattr(first, name) for name in names}),
    )


def _wrong_background(scene: Scene, world: World, rng: np.random.Generator) -> Scene | None:
    several = len(world.backgrounds) > 1
    return replace(scene, background=_other(world.backgrounds, scene.background, rng)) if several else None


def _wrong_style(scene: Scene, world: World, rng: np.random.Generator) -> Scene | None:
    if len(world.styles) == 1:
        return None
    item = pick(rng, scene.objects)
    return _with(scene, replace(item, style=_other(world.styles, item.style, rng)))


SPOILS: Mapping[str, Spoil] = {
    "missing": _missing,
    "extra": _extra,
    "colour": _wrong_colour,
    "shape": _wrong_shape,
    "size": _wrong_size,
    "moved": _moved,
    "swapped": _swapped,
    "background": _wrong_background,
    "style": _wrong_style,
}


# -- an edit that went wrong --------------------------------------------------------------------------------------


def _wrong_edits(edit: Edit, world: World, rng: np.random.Generator) -> Mapping[str, Draw]:
    changed = _differences(edit.source, edit.target)
    elsewhere = [scene for scene in _elsewhere(edit, changed, world) if scene != edit.source]

    def spoiled(inside: bool) -> Scene | None:
        scene = SPOILS[pick(rng, tuple(SPOILS))](edit.target, world, rng)
        if scene is None or scene == edit.source:
            return None
        touched = _differences(edit.target, scene)
        return scene if (touched <= changed if inside else not touched & changed) else None

    return {
        "no_op": lambda: edit.source,
        "wrong_object": lambda: pick(rng, elsewhere) if elsewhere else None,
        "wrong_value": lambda: spoiled(inside=True),
        "over_edit": lambda: spoiled(inside=False),
    }


def _elsewhere(edit: Edit, changed: frozenset[Part], world: World) -> list[Scene]:
    """The same change made to other objects or places; empty where it concerns the whole picture."""
    source = edit.source
    before = [item for item in source.objects if item.cell in changed]
    after = [item for item in edit.target.objects if item.cell in changed]
    others = [item for item in source.objects if item.cell not in changed]
    free = [cell for cell in _free_cells(source, world) if cell not in changed]
    if not before and not after:
        return []
    if before and after and before[0].cell != after[0].cell:
        kept = _without(source, before[0])
        misplaced = [_with(kept, replace(after[0], row=row, col=col)) for row, col in free]
        moved = [_with(_without(source, item), replace(item, row=after[0].row, col=after[0].col)) for item in others]
        return misplaced + moved
    if not before:
        return [_with(source, replace(after[0], row=row, col=col)) for row, col in free]
    if not after:
        return [_without(source, item) for item in others]
    named = {name: getattr(after[0], name) for name in ("shape", "colour", "size", "style")}
    values = {name: value for name, value in named.items() if value != getattr(before[0], name)}
    return [_with(source, replace(item, **values)) for item in others]


def _differences(a: Scene, b: Scene) -> frozenset[Part]:
    """Cells with another object, and 'background' where that differs."""
    cells = {item.cell for item in (*a.objects, *b.objects)}
    whole: set[Part] = {"background"} if a.background != b.background else set()
    return frozenset({cell for cell in cells if a.at(*cell) != b.at(*cell)} | whole)


def _with(scene: Scene, *items: SceneObject) -> Scene:
    taken = {item.cell for item in items}
    return replace(scene, objects=(*(old for old in scene.objects if old.cell not in taken), *items))


def _without(scene: Scene, *items: SceneObject) -> Scene:
    gone = {item.cell for item in items}
    return replace(scene, objects=tuple(old for old in scene.objects if old.cell not in gone))


def _free_cells(scene: Scene, world: World) -> list[Cell]:
    cells = ((row, col) for row in range(world.grid) for col in range(world.grid))
    return [cell for cell in cells if scene.at(*cell) is None]


def _other(options: Sequence[str], old: str, rng: np.random.Generator) -> str:
    return pick(rng, [value for value in options if value != old])
