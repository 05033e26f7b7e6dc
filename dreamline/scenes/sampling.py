"""Random scenes, and what separates training from evaluation.

Nothing here keeps state: every draw comes from the generator that the caller passes, every split from a hash of the
text or of the attribute pair itself, so any process at any time agrees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import TypeVar

import numpy as np

from dreamline.scenes.world import Scene, SceneObject, Split, World

Look = tuple[str, str]  # (colour, shape)

# Chosen so that every background and style is asked for by some evaluation instruction at the default eval_share.
_SPLIT_SALT = "split-138:"
T = TypeVar("T")


def rng_for(seed: int, index: int, purpose: str) -> np.random.Generator:
    """The generator of one sample: independent streams for every (seed >= 0, global index >= 0, purpose)."""
    entropy = (seed, index, stable_hash(purpose))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def stable_hash(text: str) -> int:
    """64 bits of sha256: equal in every process, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_of(text: str, world: World) -> Split:
    """Whether a prompt or an instruction belongs to training or to evaluation: a hash of the string alone."""
    return "eval" if stable_hash(_SPLIT_SALT + text) / 2**64 < world.eval_share else "train"


@lru_cache(maxsize=16)
def held_out_pairs(world: World) -> frozenset[frozenset[Look]]:
    """Unordered pairs of two different (colour, shape) that never meet in a training scene.

    The `held_out_share` of all pairs with the smallest hash; a pair's hash does not depend on the world.
    """
    looks = product(sorted(world.colours), sorted(world.shapes))
    pairs = sorted(combinations(sorted(looks), 2), key=lambda pair: stable_hash(f"pair:{pair}"))
    return frozenset(frozenset(pair) for pair in pairs[: round(world.held_out_share * len(pairs))])


def has_held_out_pair(looks: Sequence[Look], world: World) -> bool:
    """Whether two of these (colour, shape) are a held-out pair."""
    forbidden = held_out_pairs(world)
    return any(frozenset(pair) in forbidden for pair in combinations(set(looks), 2))


def looks_of(scene: Scene) -> list[Look]:
    """The (colour, shape) of every object."""
    return [item.look for item in scene.objects]


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of `options`, uniformly."""
    return options[int(rng.integers(len(options)))]


def random_look(world: World, rng: np.random.Generator) -> Look:
    """A uniform (colour, shape)."""
    return pick(rng, world.colours), pick(rng, world.shapes)


def place(looks: Sequence[Look], world: World, rng: np.random.Generator) -> Scene:
    """A scene of objects with these looks in random cells, with random sizes, styles, jitter and background.

    Raises:
        ValueError: more looks than cells.
    """
    if len(looks) > world.grid**2:
        raise ValueError(f"{len(looks)} objects do not fit into {world.grid}x{world.grid} cells")
    cells = rng.permutation(world.grid**2)[: len(looks)]
    objects = tuple(
        place_object(look, int(cell) // world.grid, int(cell) % world.grid, world, rng)
        for look, cell in zip(looks, cells, strict=True)
    )
    return Scene(objects, pick(rng, world.backgrounds))


def place_object(look: Look, row: int, col: int, world: World, rng: np.random.Generator) -> SceneObject:
    """An object in a given cell, with random size, jitter and style."""
    colour, shape = look
    size, dx, dy = pick(rng, world.sizes), _jitter(world, rng), _jitter(world, rng)
    return SceneObject(shape, colour, row, col, size, dx, dy, pick(rng, world.styles))


def sample_scene(
    world: World, rng: np.random.Generator, split: Split, num_objects: tuple[int, int] | None = None
) -> Scene:
    """A uniform scene.

    Args:
        split: scenes of "train" never hold a held-out pair; scenes of "eval" may.
        num_objects: fewest and most objects; the world's own range by default.
    """
    low, high = num_objects or (world.min_objects, world.max_objects)
    looks: list[Look] = []
    for _ in range(int(rng.integers(low, high + 1))):
        look = random_look(world, rng)
        while split == "train" and has_held_out_pair([*looks, look], world):
            look = random_look(world, rng)
        looks.append(look)
    return place(looks, world, rng)


def _jitter(world: World, rng: np.random.Generator) -> float:
    steps = round(2 * world.jitter)
    return float(rng.integers(-steps, steps + 1)) / 2 if steps else 0.0
