"""What the vision-language encoder is pre-trained on: prompts, answers, and what a reader should find in the states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dreamline.model.prompts import edit_prompt, generate_prompt
from dreamline.scenes.captions import name_group, sample_captioned_scene
from dreamline.scenes.describe import describe
from dreamline.scenes.edits import Edit, sample_edit
from dreamline.scenes.facts import RELATIONS, Facts, ObjectFact
from dreamline.scenes.sampling import rng_for, sample_scene
from dreamline.scenes.world import Scene, SceneObject, World

Probabilities = NDArray[np.float32]

EMPTY_SHARE = 0.05  # of examples whose user text is empty, as guidance shows it to the encoder
PLAIN_SHARE = 0.1  # of edit examples without an instruction, whose answer describes the picture
_OPPOSITE = {"right": "left", "below": "above"}


@dataclass(frozen=True)
class Reading:
    """What can be known of a picture: for every cell and for the background, how likely each content is.

    cells: [grid^2, contents], row by row; class 0 is an empty cell. background: [backgrounds].
    """

    cells: Probabilities
    background: Probabilities


@dataclass(frozen=True)
class Example:
    """One user text with its answer. `source` is there for edits only, with the picture's scene."""

    text: str
    answer: str
    target: Reading
    source: Reading | None = None
    picture: Scene | None = None


def generation_examples(world: World, count: int, seed: int) -> list[Example]:
    """Captions of the training split; the answer repeats the caption's facts in canonical form."""
    examples = []
    for index in range(count):
        rng = rng_for(seed, index, "encoder/generation")
        if rng.random() < EMPTY_SHARE:
            examples.append(Example("", "anything.", read_scene(sample_scene(world, rng, "train"), world)))
            continue
        caption = sample_captioned_scene(world, rng, "train")[1]
        examples.append(generation_example(caption.text, caption.facts, world))
    return examples


def generation_example(text: str, facts: Facts, world: World) -> Example:
    """The example of one caption."""
    return Example(generate_prompt(text), state_facts(facts), read_facts(facts, world))


def edit_examples(world: World, count: int, seed: int) -> list[Example]:
    """Edits of the training split; the answer describes the target, or the picture when nothing is asked for."""
    examples = []
    for index in range(count):
        rng = rng_for(seed, index, "encoder/edit")
        if rng.random() < PLAIN_SHARE:
            scene = sample_scene(world, rng, "train")
            reading = read_scene(scene, world)
            examples.append(Example("", describe(scene, world), reading, reading, scene))
            continue
        examples.append(edit_example(sample_edit(world, rng, "train"), world))
    return examples


def edit_example(edit: Edit, world: World) -> Example:
    """The example of one edit."""
    readings = read_scene(edit.target, world), read_scene(edit.source, world)
    return Example(edit_prompt(edit.instruction), describe(edit.target, world), *readings, edit.source)


def state_facts(facts: Facts) -> str:
    """The facts of a caption in one canonical order: 'a red circle left of a blue square. white background.'"""
    groups = facts.objects
    if facts.relation is not None:
        if facts.relation in _OPPOSITE:
            groups = groups[::-1]
        link = {"left": " left of ", "above": " above "}[_OPPOSITE.get(facts.relation, facts.relation)]
    else:
        groups = tuple(sorted(groups, key=lambda fact: (fact.shape, fact.colour or "", fact.count)))
        link = " and "
    words = link.join(name_group(replace(fact, style=facts.style or fact.style)) for fact in groups)
    return f"{words}. {facts.background or 'any'} background."


def read_scene(scene: Scene, world: World) -> Reading:
    """A scene that is known completely."""
    cells = np.zeros((world.grid**2, num_contents(world)), np.float32)
    for index, (row, col) in enumerate(product(range(world.grid), repeat=2)):
        item = scene.at(row, col)
        cells[index, 0 if item is None else content(item, world)] = 1
    return Reading(cells, _one_hot(world.backgrounds, scene.background))


def read_facts(facts: Facts, world: World) -> Reading:
    """How likely each content of a cell is, over all scenes that the facts allow."""
    positions = [(row, col) for row in range(world.grid) for col in range(world.grid)]
    cells = np.zeros((len(positions), num_contents(world)), np.float32)
    for order, fact in enumerate(facts.objects):
        looks = looks_of_fact(replace(fact, style=facts.style or fact.style), world)
        for look in looks:
            weight = fact.count / len(looks)
            cells[:, look] += weight * _places(facts.relation, order, positions)
    cells[:, 0] = 1 - cells.sum(1)
    if facts.background is None:
        return Reading(cells, np.full(len(world.backgrounds), 1 / len(world.backgrounds), np.float32))
    return Reading(cells, _one_hot(world.backgrounds, facts.background))


def num_contents(world: World) -> int:
    """How many things a cell can hold: nothing, or a shape in a colour, size and style."""
    return 1 + len(objects_of(world))


def content(item: SceneObject, world: World) -> int:
    """Class of an object."""
    return objects_of(world)[item.colour, item.shape, item.size, item.style]


@lru_cache(maxsize=4)
def objects_of(world: World) -> Mapping[tuple[str, str, str, str], int]:
    """The class of every (colour, shape, size, style); classes begin at 1."""
    every = product(world.colours, world.shapes, world.sizes, world.styles)
    return {look: number for number, look in enumerate(every, start=1)}


def looks_of_fact(fact: ObjectFact, world: World) -> list[int]:
    """Classes of the objects that a fact may mean."""
    stated = (fact.colour, fact.shape, fact.size, fact.style)
    return [
        number
        for look, number in objects_of(world).items()
        if all(wanted in (None, found) for wanted, found in zip(stated, look, strict=True))
    ]


def _places(relation: str | None, order: int, positions: Sequence[tuple[int, int]]) -> Probabilities:
    """Probability of each cell for the first (order 0) or second object of a relation."""
    if relation is None:
        return np.full(len(positions), 1 / len(positions), np.float32)
    found = np.zeros(len(positions), np.float32)
    for first, second in product(range(len(positions)), repeat=2):
        a, b = (SceneObject("circle", "red", *positions[index]) for index in (first, second))
        if RELATIONS[relation](a, b):
            found[(first, second)[order]] += 1
    found /= found.sum()
    return found


def _one_hot(options: Sequence[str], value: str) -> Probabilities:
    return np.array([option == value for option in options], np.float32)
