"""What a prompt states about a scene, and the exact judge of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

from dreamline.scenes.world import UNKNOWN, Scene, SceneObject

RELATIONS: Mapping[str, Callable[[SceneObject, SceneObject], bool]] = {
    "left": lambda a, b: a.col < b.col,
    "right": lambda a, b: a.col > b.col,
    "above": lambda a, b: a.row < b.row,
    "below": lambda a, b: a.row > b.row,
}


@dataclass(frozen=True)
class ObjectFact:
    """`count` objects that all have these attributes; None leaves an attribute free."""

    shape: str
    colour: str | None = None
    size: str | None = None
    count: int = 1
    style: str | None = None

    def fits(self, item: SceneObject) -> bool:
        """Whether an object has every stated attribute."""
        stated = ((self.colour, item.colour), (self.size, item.size), (self.style, item.style))
        return item.shape == self.shape and all(wanted in (None, found) for wanted, found in stated)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dumps`; a free style is left out."""
        return {name: value for name, value in asdict(self).items() if name != "style" or value is not None}


@dataclass(frozen=True)
class Facts:
    """The whole set of objects of a scene, in groups, and what else the prompt states.

    A prompt enumerates all objects: their number is exact. With a `relation` there are two groups of one object,
    and the first stands <relation> of the second, judged by cells (left: a smaller column, whatever the rows).
    A `style` here is that of every object, as in 'an outline drawing of two squares'.
    """

    objects: tuple[ObjectFact, ...]
    relation: str | None = None
    background: str | None = None
    style: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dumps`."""
        return asdict(self) | {"objects": [item.to_json() for item in self.objects]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Facts:
        """Inverse of `to_json`."""
        return cls(**{**value, "objects": tuple(ObjectFact(**item) for item in value["objects"])})

    @property
    def looks(self) -> list[tuple[str, str]]:
        """The (colour, shape) of every group whose colour is stated."""
        return [(item.colour, item.shape) for item in self.objects if item.colour is not None]


def satisfies(scene: Scene, facts: Facts) -> bool:
    """Whether a scene is what the facts state: every object is accounted for, none is left over or unclear."""
    if facts.background not in (None, scene.background):
        return False
    if facts.style is not None and any(item.style != facts.style for item in scene.objects):
        return False
    if any(UNKNOWN in (item.shape, item.colour) for item in scene.objects):
        return False
    if len(scene.objects) != sum(fact.count for fact in facts.objects):
        return False
    if facts.relation is not None:
        first, second = facts.objects
        stands = RELATIONS[facts.relation]
        return any(first.fits(a) and second.fits(b) and stands(a, b) for a, b in permutations(scene.objects, 2))
    return _assign(scene.objects, facts.objects, tuple(fact.count for fact in facts.objects))


def _assign(items: tuple[SceneObject, ...], facts: tuple[ObjectFact, ...], left: tuple[int, ...]) -> bool:
    if not items:
        return True
    return any(
        left[i] > 0 and fact.fits(items[0]) and _assign(items[1:], facts, (*left[:i], left[i] - 1, *left[i + 1 :]))
        for i, fact in enumerate(facts)
    )
