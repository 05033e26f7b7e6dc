"""Prompts: many wordings over GenEval's six categories, size and style, and the parser that reads them back.

A prompt is `frame(content) + background`. The content names the whole set of objects; attributes that it does not
name are free. See `facts.satisfies` for what the judge makes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dreamline.scenes.facts import RELATIONS, Facts, ObjectFact
from dreamline.scenes.sampling import Look, has_held_out_pair, pick, place, random_look, split_of
from dreamline.scenes.world import STYLE_WORDS, Scene, SceneObject, Split, World, name_look, with_article

CATEGORIES = ("single_object", "two_objects", "counting", "colors", "position", "color_attribution", "size", "style")

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FRAMES = (
    "{}",
    "a picture of {}",
    "an image of {}",
    "a photo of {}",
    "a drawing of {}",
    "a scene with {}",
    "an image showing {}",
    "a picture with {}",
)
STYLE_FRAMES: Mapping[str, tuple[str, ...]] = {
    "filled": ("a filled drawing of {}", "a solid drawing of {}", "a picture of {} in filled style"),
    "outline": ("an outline drawing of {}", "a line drawing of {}", "a picture of {} in outline style"),
}
BACKGROUND_PHRASES = (
    " on a {} background",
    " against a {} background",
    " on a plain {} background",
    " in front of a {} background",
)
RELATION_PHRASES: Mapping[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right of", "on the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath", "lower than"),
}
PAIR_JOINERS = (" and ", " together with ", " along with ")

_PLAIN_FRAME = 0.4  # how often each of these choices is made
_STATE_BACKGROUND = 0.4
_STATE_STYLE = 0.4
_STATE_SIZE = 0.4
_STATE_COLOUR = 0.7
_TRIES = 2000


class NoCaption(LookupError):
    """No prompt of the wanted kind and split fits; the message says what to change."""


@dataclass(frozen=True)
class Caption:
    """A prompt, its category (GenEval's, or the attribute it is about) and what it states."""

    text: str
    category: str
    facts: Facts


def available_categories(world: World) -> tuple[str, ...]:
    """The categories that scenes of this world can show."""
    single, several = world.min_objects == 1, world.max_objects > 1
    special = {"size": len(world.sizes) > 1, "style": len(world.styles) > 1, "single_object": single, "colors": single}
    return tuple(name for name in CATEGORIES if special.get(name, several))


def categories_of(scene: Scene, world: World) -> tuple[str, ...]:
    """The categories in which this scene can be described completely; never empty for a scene with objects."""
    shapes = Counter(item.shape for item in scene.objects)
    looks = Counter(item.look for item in scene.objects)
    count = len(scene.objects)
    fits = {
        "single_object": count == 1,
        "two_objects": count == 2 and len(shapes) == 2,
        "counting": count > 1 and max(shapes.values()) > 1,
        "colors": count == 1,
        "position": count == 2 and len(looks) == 2,
        "color_attribution": count > 1 and len(looks) == count,
        "size": 1 <= count <= 2,
        "style": 1 <= count <= 2,
    }
    return tuple(name for name in available_categories(world) if fits[name])


def caption(scene: Scene, world: World, rng: np.random.Generator, split: Split, category: str | None = None) -> Caption:
    """A random true prompt for a scene, of the given split.

    Raises:
        NoCaption: the scene cannot be described in that category, or no wording of it falls into the split (the
            "eval" split holds few: use `sample_captioned_scene`, which draws scene and prompt together).
    """
    fitting = categories_of(scene, world)
    options = fitting if category is None else (category,)
    if not options or not set(options) <= set(fitting):
        raise NoCaption(f"category {category} does not fit this scene (fitting: {fitting}): {scene}")
    for _ in range(_TRIES):
        drawn = _draw(scene, world, rng, pick(rng, options))
        if split_of(drawn.text, world) == split:
            return drawn
    raise NoCaption(f"no {split} prompt for this scene in {_TRIES} tries; use sample_captioned_scene: {scene}")


def sample_captioned_scene(
    world: World, rng: np.random.Generator, split: Split, category: str | None = None
) -> tuple[Scene, Caption]:
    """A scene and a prompt for it, with every available category equally likely.

    Scenes of "train" hold no held-out pair. Raises NoCaption when the world cannot show the category.
    """
    options = available_categories(world)
    if category is not None and category not in options:
        raise NoCaption(f"category {category!r} is not available in this world (available: {options})")
    chosen = category or pick(rng, options)
    for _ in range(_TRIES):
        looks = _looks_for(chosen, world, rng)
        if split == "train" and has_held_out_pair(looks, world):
            continue
        scene = place(looks, world, rng)
        drawn = _draw(scene, world, rng, chosen)
        if split_of(drawn.text, world) == split:
            return scene, drawn
    raise NoCaption(f"no {split} prompt of category {chosen} in {_TRIES} tries; raise eval_share or add wordings")


def _looks_for(category: str, world: World, rng: np.random.Generator) -> list[Look]:
    """Looks of a scene that shows the category well."""
    if category in ("single_object", "colors"):
        return [random_look(world, rng)]
    if category == "counting":
        return _looks_to_count(world, rng)
    if category in ("size", "style"):
        fewest, most = max(1, world.min_objects), min(2, world.max_objects)
        return [random_look(world, rng) for _ in range(rng.integers(fewest, most + 1))]
    while True:
        first, second = looks = [random_look(world, rng), random_look(world, rng)]
        differ = {
            "two_objects": first[1] != second[1],
            "position": first != second,
            "color_attribution": first[0] != second[0],
        }
        if differ[category]:
            return looks


def _looks_to_count(world: World, rng: np.random.Generator) -> list[Look]:
    total = int(rng.integers(max(2, world.min_objects), world.max_objects + 1))
    others = 1 if total > 2 and rng.random() < 0.35 else 0  # 'two red circles and a blue square'
    shape = pick(rng, world.shapes)
    looks: list[Look]
    if rng.random() < 0.5:
        looks = [(pick(rng, world.colours), shape)] * (total - others)
    else:
        looks = [(pick(rng, world.colours), shape) for _ in range(total - others)]
    other_shapes = [name for name in world.shapes if name != shape]
    return looks + [(pick(rng, world.colours), pick(rng, other_shapes)) for _ in range(others)]


def _draw(scene: Scene, world: World, rng: np.random.Generator, category: str) -> Caption:
    objects, relation, content = _content(scene, world, rng, category)
    background = scene.background if rng.random() < _STATE_BACKGROUND else None
    style = None
    if len(world.styles) > 1 and len({item.style for item in scene.objects}) == 1 and objects[0].style is None:
        style = scene.objects[0].style if rng.random() < _STATE_STYLE else None
    if style is not None:
        frame = pick(rng, STYLE_FRAMES[style])
    else:
        frame = FRAMES[0] if rng.random() < _PLAIN_FRAME else pick(rng, FRAMES[1:])
    text = frame.format(content)
    if background is not None:
        text += pick(rng, BACKGROUND_PHRASES).format(background)
    return Caption(text, category, Facts(objects, relation, background, style))


def _content(
    scene: Scene, world: World, rng: np.random.Generator, category: str
) -> tuple[tuple[ObjectFact, ...], str | None, str]:
    """What is stated of the objects, the relation between them, and the words for both."""
    items = [scene.objects[i] for i in rng.permutation(len(scene.objects))]
    state_size = len(world.sizes) > 1 and (category == "size" or rng.random() < _STATE_SIZE)
    state_style = len(world.styles) > 1 and (category == "style" or rng.random() < _STATE_STYLE)
    if category == "position":
        state_colour = items[0].shape == items[1].shape or rng.random() < _STATE_COLOUR
        facts = _group(items, state_colour, state_size, state_style)
        relation = pick(rng, [name for name, holds in RELATIONS.items() if holds(items[0], items[1])])
        phrase = pick(rng, RELATION_PHRASES[relation])
        return facts, relation, f"{name_group(facts[0])} {phrase} {name_group(facts[1])}"
    if category == "counting":
        repeated = len({item.look for item in items}) < len(items)
        # Colours are stated only where there is still something to count, so that 'two red circles' stays a count.
        facts = _group(items, repeated and rng.random() < _STATE_COLOUR, state_size=False, state_style=False)
        return facts, None, _join([name_group(fact) for fact in facts], PAIR_JOINERS[0])
    state_colour = category in ("colors", "color_attribution")
    if category in ("size", "style"):
        state_colour = rng.random() < _STATE_COLOUR
    facts = _group(items, state_colour, state_size, state_style)
    joiner = pick(rng, PAIR_JOINERS) if len(facts) == 2 else PAIR_JOINERS[0]
    return facts, None, _join([name_group(fact) for fact in facts], joiner)


def _group(
    items: Sequence[SceneObject], state_colour: bool, state_size: bool, state_style: bool
) -> tuple[ObjectFact, ...]:
    """One fact per distinct stated description, in order of appearance."""
    groups = Counter(
        ObjectFact(
            item.shape,
            item.colour if state_colour else None,
            item.size if state_size else None,
            style=item.style if state_style else None,
        )
        for item in items
    )
    return tuple(replace(fact, count=count) for fact, count in groups.items())


def name_group(fact: ObjectFact) -> str:
    """'a red circle', 'two small squares', 'an outlined star'."""
    words = name_look(fact.shape, fact.colour, fact.size, fact.style)
    return with_article(words) if fact.count == 1 else f"{NUMBERS[fact.count - 1]} {plural(words)}"


def plural(words: str) -> str:
    """'red cross' -> 'red crosses'."""
    return words + ("es" if words.endswith("s") else "s")


def _join(parts: Sequence[str], joiner: str) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + joiner + parts[-1]


def parse(text: str, world: World) -> Facts | None:
    """Read a prompt of this grammar back into facts; None for any other text.

    Case, repeated blanks and a final full stop do not matter.
    """
    plain = " ".join(text.lower().split()).removesuffix(".")
    for rest, background in _strip_background(plain, world):
        for content, style in _strip_frame(rest, world):
            found = _parse_content(content, world)
            if found is not None:
                return Facts(*found, background, style)
    return None


def _strip_background(text: str, world: World) -> Iterator[tuple[str, str | None]]:
    for background in world.backgrounds:
        for phrase in BACKGROUND_PHRASES:
            if text.endswith(phrase.format(background)):
                yield text.removesuffix(phrase.format(background)), background
    yield text, None


def _strip_frame(text: str, world: World) -> Iterator[tuple[str, str | None]]:
    styled = [(frame, style) for style in world.styles if len(world.styles) > 1 for frame in STYLE_FRAMES[style]]
    for frame, style in [*styled, *((frame, None) for frame in FRAMES)]:
        before, after = frame.split("{}")
        if text.startswith(before) and text.endswith(after):
            yield text.removeprefix(before).removesuffix(after), style


def _parse_content(content: str, world: World) -> tuple[tuple[ObjectFact, ...], str | None] | None:
    for relation, phrases in RELATION_PHRASES.items():
        for phrase in phrases:
            first, found, second = content.partition(f" {phrase} ")
            pair = (_parse_group(first, world), _parse_group(second, world)) if found else (None, None)
            if pair[0] and pair[1] and pair[0].count == pair[1].count == 1:
                return (pair[0], pair[1]), relation
    for joiner in PAIR_JOINERS:
        content = content.replace(joiner, ", ")
    groups = [_parse_group(part, world) for part in content.split(", ")]
    facts = tuple(group for group in groups if group is not None)
    return (facts, None) if len(facts) == len(groups) else None


def _parse_group(words: str, world: World) -> ObjectFact | None:
    match words.split():
        case [number, *attributes, noun]:
            count = 1 if number in ("a", "an") else NUMBERS.index(number) + 1 if number in NUMBERS else 0
        case _:
            return None
    names = {name if count == 1 else plural(name): name for name in world.shapes}
    styles = {STYLE_WORDS[style]: style for style in world.styles if len(world.styles) > 1}
    size = attributes.pop(0) if attributes and attributes[0] in world.sizes else None
    style = styles[attributes.pop(0)] if attributes and attributes[0] in styles else None
    colour = attributes.pop(0) if attributes and attributes[0] in world.colours else None
    if not count or attributes or noun not in names:
        return None
    return ObjectFact(names[noun], colour, size, count, style)
