"""The default world never changes: its scores are published, and its data sets, encoders and digests depend on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dreamline.config import digest
from dreamline.rewards.reading import labels
from dreamline.scenes.benchmark import edit_items, generation_items
from dreamline.scenes.captions import caption, sample_captioned_scene
from dreamline.scenes.describe import describe
from dreamline.scenes.detector import detect_many
from dreamline.scenes.edits import sample_edit
from dreamline.scenes.render import render
from dreamline.scenes.sampling import rng_for, sample_scene
from dreamline.scenes.world import World
from rl.preferences import sample_preference
from training.encoders.examples import edit_examples, generation_examples

NUM = 150
GOLDEN = {
    "captions": "dcb4ec945030",
    "edits": "f585ea0f859b",
    "benchmark": "5c2d8e289127",
    "preferences": "7d9010017e9d",
    "examples": "040d27098298",
    "pictures": "2e4e9a899e32",
    "readings": "bd70c2238a19",
}


def fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def captions() -> list[Any]:
    found: list[Any] = []
    for split in ("train", "eval"):
        for index in range(NUM):
            scene, drawn = sample_captioned_scene(World(), rng_for(0, index, "data:t2i"), split)
            found.append([scene.to_json(), drawn.text, drawn.category, drawn.facts.to_json()])
            rng = rng_for(1, index, "test")
            other = sample_scene(World(), rng, "train")
            found.append([caption(other, World(), rng, "train").text, describe(other, World())])
            found.append(labels(other, World()).tolist())
    return found


def edits() -> list[Any]:
    found: list[Any] = []
    for split in ("train", "eval"):
        for index in range(NUM):
            drawn = sample_edit(World(), rng_for(0, index, "data:edit"), split)
            found.append([drawn.type, drawn.instruction, drawn.source.to_json(), drawn.target.to_json()])
    return found


def benchmark() -> list[Any]:
    items = [*generation_items(World(), NUM, seed=0), *edit_items(World(), NUM, seed=0)]
    return [item.to_json() for item in items]


def preferences() -> list[Any]:
    found: list[Any] = []
    for index in range(NUM):
        group = sample_preference(World(), 0, index, "train", 0.5)
        scenes = [group.winner, *group.losers, *([group.source] if group.source else [])]
        found.append([group.prompt, group.faults, [scene.to_json() for scene in scenes]])
    return found


def examples() -> list[Any]:
    drawn = [*generation_examples(World(), NUM, 0), *edit_examples(World(), NUM, 0)]
    return [[item.text, item.answer, [part.tolist() for part in asdict(item.target).values()]] for item in drawn]


def pictures() -> list[Any]:
    scenes = [sample_scene(World(), rng_for(0, index, "test"), "eval") for index in range(NUM)]
    return [hashlib.sha256(render(scene, World()).tobytes()).hexdigest() for scene in scenes]


def readings() -> list[Any]:
    """What the detector makes of blends of two scenes, of which some are clear and some are not."""
    shown = [render(sample_scene(World(), rng_for(2, i, "test"), "eval"), World()).astype(float) for i in range(NUM)]
    mixed = [(0.8 * one + 0.2 * two).astype(np.uint8) for one, two in pairwise(shown)]
    return [scene.to_json() for scene in detect_many(np.stack(mixed), World())]


PARTS = {part.__name__: part for part in (captions, edits, benchmark, preferences, examples, pictures, readings)}


@pytest.mark.parametrize("name", PARTS)
def test_the_default_world_is_as_published(name: str) -> None:
    assert fingerprint(PARTS[name]()) == GOLDEN[name]


def test_the_worlds_own_digest() -> None:
    assert digest(World()) == "d4a4ee5eb414"
