"""Edit triplets: a source scene, an unambiguous instruction and the one target scene that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from dreamline.scenes.sampling import (
    has_held_out_pair,
    looks_of,
    pick,
    place_object,
    random_look,
    sample_scene,
    split_of,
)
from dreamline.scenes.world import (
    SIZE_FACTORS,
    STYLE_WORDS,
    Scene,
    SceneObject,
    Split,
    World,
    cell_name,
    name_look,
    with_article,
)

EDIT_TYPES = ("add", "remove", "replace", "recolour", "move", "background", "resize", "style")

# {ref} an existing object, {new} a new one with its article, {cell} a place, {value} a colour, size, style or
# background; {comparative} larger or smaller, where only one size can be meant.
WORDINGS: Mapping[str, tuple[str, ...]] = {
    "add": (
        "add {new} in the {cell}",
        "put {new} in the {cell}",
        "place {new} in the {cell}",
        "draw {new} in the {cell}",
        "insert {new} in the {cell}",
    ),
    "remove": ("remove {ref}", "delete {ref}", "erase {ref}", "take away {ref}", "get rid of {ref}", "take out {ref}"),
    "replace": (
        "replace {ref} with {new}",
        "swap {ref} for {new}",
        "exchange {ref} for {new}",
        "change {ref} into {new}",
        "turn {ref} into {new}",
    ),
    "recolour": (
        "make {ref} {value}",
        "paint {ref} {value}",
        "turn {ref} {value}",
        "change the colour of {ref} to {value}",
        "recolour {ref} to {value}",
        "set the colour of {ref} to {value}",
    ),
    "move": (
        "move {ref} to the {cell}",
        "shift {ref} to the {cell}",
        "bring {ref} to the {cell}",
        "slide {ref} to the {cell}",
        "relocate {ref} to the {cell}",
    ),
    "background": (
        "change the background to {value}",
        "make the background {value}",
        "set the background to {value}",
        "turn the background {value}",
        "paint the background {value}",
        "replace the background with {value}",
        "use a {value} background",
        "switch to a {value} background",
        "give it a {value} background",
        "recolour the background to {value}",
    ),
    "resize": (
        "make {ref} {value}",
        "resize {ref} to {value}",
        "change the size of {ref} to {value}",
        "set the size of {ref} to {value}",
        "make {ref} {comparative}",
        "resize {ref} to be {comparative}",
        "redraw {ref} {comparative}",
    ),
    "style": (
        "make {ref} {value}",
        "turn {ref} into {new} one",
        "redraw {ref} {value}",
        "change the style of {ref} to {value}",
        "set the style of {ref} to {value}",
        "draw {ref} as {new} shape",
    ),
}

_STATE_PLACE = 0.1  # how often an object is named by its place although its attributes would do
_TRIES = 5000


class NoEdit(LookupError):
    """No edit of the wanted type and split can be drawn; the message says what to change."""


@dataclass(frozen=True)
class Edit:
    """An instruction and the scenes before and after it."""

    type: str
    instruction: str
    source: Scene
    target: Scene


def available_edit_types(world: World) -> tuple[str, ...]:
    """The edit types that this world allows."""
    varies = world.max_objects > world.min_objects
    allowed = {
        "add": varies,
        "remove": varies,
        "move": world.min_objects < world.grid**2,
        "background": len(world.backgrounds) > 1,
        "resize": len(world.sizes) > 1,
        "style": len(world.styles) > 1,
    }
    return tuple(name for name in EDIT_TYPES if allowed.get(name, True))


def sample_edit(world: World, rng: np.random.Generator, split: Split, type: str | None = None) -> Edit:
    """A random edit, with every available type equally likely.

    Both scenes stay within the world's numbers of objects. In "train" neither holds a held-out pair. The instruction's
    hash belongs to the split.

    Raises:
        NoEdit: the world does not allow this type.
    """
    options = available_edit_types(world)
    if type is not None and type not in options:
        raise NoEdit(f"edit type {type!r} is not available in this world (available: {options})")
    chosen = type or pick(rng, options)
    low, high = world.min_objects, world.max_objects
    num_objects = {"add": (low, high - 1), "remove": (low + 1, high), "move": (low, min(high, world.grid**2 - 1))}
    for _ in range(_TRIES):
        source = sample_scene(world, rng, split, num_objects.get(chosen))
        target, words = _DRAW[chosen](source, world, rng)
        wordings = [text for text in WORDINGS[chosen] if "{comparative}" not in text or "comparative" in words]
        instruction = pick(rng, wordings).format(**words)
        if split_of(instruction, world) != split:
            continue
        if split == "train" and has_held_out_pair(looks_of(target), world):
            continue
        return Edit(chosen, instruction, source, target)
    raise NoEdit(f"no {split} edit of type {chosen} in {_TRIES} tries; raise eval_share or add wordings")


def references(item: SceneObject, scene: Scene, world: World) -> list[str]:
    """All noun phrases with 'the' that mean this object and no other, by attributes: 'the circle', 'the red shape'.

    The list is empty when another object shares all attributes.
    """
    attributes = ["colour", "shape"]
    if len(world.styles) > 1:
        attributes.insert(0, "style")
    if len(world.sizes) > 1:
        attributes.insert(0, "size")
    found = []
    for used in product((False, True), repeat=len(attributes)):
        stated = {name: getattr(item, name) for name, is_used in zip(attributes, used, strict=True) if is_used}
        same = [other for other in scene.objects if all(getattr(other, name) == stated[name] for name in stated)]
        if stated and len(same) == 1:
            noun, colour = stated.get("shape", "shape"), stated.get("colour")
            found.append("the " + name_look(noun, colour, stated.get("size"), stated.get("style")))
    return found


def _refer(item: SceneObject, scene: Scene, world: World, rng: np.random.Generator) -> str:
    by_attributes = references(item, scene, world)
    if by_attributes and rng.random() >= _STATE_PLACE:
        return pick(rng, by_attributes)
    noun = item.shape if rng.random() < 0.5 else f"{item.colour} {item.shape}"
    return f"the {noun} in the {_place(item.row, item.col, world, rng)}"


def _place(row: int, col: int, world: World, rng: np.random.Generator) -> str:
    edge = world.grid - 1
    is_corner = row in (0, edge) and col in (0, edge)
    return cell_name(row, col, world.grid) + (" corner" if is_corner and rng.random() < 0.5 else "")


def _with(scene: Scene, *new: SceneObject, without: SceneObject | None = None) -> Scene:
    kept = tuple(item for item in scene.objects if without is None or item.cell != without.cell)
    return replace(scene, objects=(*kept, *new))


def _free_cell(scene: Scene, world: World, rng: np.random.Generator) -> tuple[int, int]:
    taken = {item.cell for item in scene.objects}
    cells = [(row, col) for row in range(world.grid) for col in range(world.grid) if (row, col) not in taken]
    return pick(rng, cells)


def _other(options: Sequence[str], old: str, rng: np.random.Generator) -> str:
    return pick(rng, [value for value in options if value != old])


Drawn = tuple[Scene, dict[str, str]]  # the target, and the words for the wording's slots


def _add(scene: Scene, world: World, rng: np.random.Generator) -> Drawn:
    new = place_object(random_look(world, rng), *_free_cell(scene, world, rng), world, rng)
    size = new.size if len(world.sizes) > 1 else None
    style = new.style if len(world.styles) > 1 else None
    words = name_look(new.shape, new.colour, size, style)
    return _with(scene, new), {"new": with_article(words), "cell": _place(new.row, new.col, world, rng)}


def _remove(scene: Scene, world: World, rng: np.random.Generator) -> Drawn:
    item = pick(rng, scene.objects)
    return _with(scene, without=item), {"ref": _refer(item, scene, world, rng)}


def _replace(scene: Scene, world: World, rng: np.random.Generator) -> Drawn:
    item = pick(rng, scene.objects)
    new = replace(item, shape=_other(world.shapes, item.shape, rng), colour=pick(rng, world.colours))
    words = {"ref": _refer(item, scene, world, rng), "new": with_article(f"{new.colour} {new.shape}")}
    return _with(scene, new, without=item), words


def _recolour(scene: Scene, world: World, rng: np.random.Generator) -> Drawn:
    item = pick(rng, scene.objects)
    new = replace(item, colour=_other(world.colours, item.colour, rng))
    return _with(scene, new, without=item), {"ref": _refer(item, scene, world, rng), "value": new.colour}


def _move(scene: Scene, world: World, rng: np.random.Generator) -> Drawn:
    item = pick(rng, scene.objects)
    row, col = _free_cell(scene, world, rng)
    new = replace(item, row=row, col=col)
    return _with(scene, new, without=item), {
        "ref": _refer(item, scene, world, rng),
        "cell": _place(row, col, world, rng),
    }


def _background(scene: Scene, world: World, rng: np.random.Generator) -> Drawn:
    value = _other(world.backgrounds, scene.background, rng)
    return replace(scene, background=value), {"value": value}


def _resize(scene: Scene, world: World, rng: np.random.Generator) -> Drawn:
    item = pick(rng, scene.objects)
    new = replace(item, size=_other(world.sizes, item.size, rng))
    words = {"ref": _refer(item, scene, world, rng), "value": new.size}
    if len(world.sizes) == 2:
        grows = SIZE_FACTORS[new.size] > SIZE_FACTORS[item.size]
        words["comparative"] = "larger" if grows else "smaller"
    return _with(scene, new, without=item), words


def _style(scene: Scene, world: World, rng: np.random.Generator) -> Drawn:
    item = pick(rng, scene.objects)
    new = replace(item, style=_other(world.styles, item.style, rng))
    value = STYLE_WORDS[new.style]
    words = {"ref": _refer(item, scene, world, rng), "value": value, "new": with_article(value)}
    return _with(scene, new, without=item), words


_DRAW: Mapping[str, Callable[[Scene, World, np.random.Generator], Drawn]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "recolour": _recolour,
    "move": _move,
    "background": _background,
    "resize": _resize,
    "style": _style,
}
