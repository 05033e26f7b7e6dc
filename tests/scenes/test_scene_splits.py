import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamline.scenes.captions import sample_captioned_scene
from dreamline.scenes.edits import sample_edit
from dreamline.scenes.render import render
from dreamline.scenes.sampling import (
    has_held_out_pair,
    held_out_pairs,
    looks_of,
    rng_for,
    sample_scene,
    split_of,
)
from dreamline.scenes.world import World

NUM = 20_000


def test_train_and_eval_prompts_are_disjoint_and_train_has_no_held_out_pair(demo: World) -> None:
    train, evaluation = set(), set()
    for index in range(NUM):
        scene, drawn = sample_captioned_scene(demo, rng_for(0, index, "test"), "train")
        assert not has_held_out_pair(looks_of(scene), demo)
        train.add(drawn.text)
    for index in range(NUM // 10):
        evaluation.add(sample_captioned_scene(demo, rng_for(0, index, "test"), "eval")[1].text)
    assert len(train) > 5000
    assert len(evaluation) > 500
    assert not train & evaluation


def test_train_and_eval_instructions_are_disjoint_and_train_has_no_held_out_pair(demo: World) -> None:
    train, evaluation = set(), set()
    for index in range(NUM):
        edit = sample_edit(demo, rng_for(0, index, "test"), "train")
        assert not has_held_out_pair(looks_of(edit.source), demo)
        assert not has_held_out_pair(looks_of(edit.target), demo)
        train.add(edit.instruction)
    for index in range(NUM // 10):
        evaluation.add(sample_edit(demo, rng_for(0, index, "test"), "eval").instruction)
    assert not train & evaluation


def test_eval_scenes_show_held_out_pairs_and_train_scenes_all_others(demo: World) -> None:
    looks = {look for pair in held_out_pairs(demo) for look in pair}
    seen = set()
    for index in range(NUM):
        pair = frozenset(looks_of(sample_scene(demo, rng_for(0, index, "test"), "train", (2, 2))))
        if len(pair) == 2:
            seen.add(pair)
    num_looks = len(demo.colours) * len(demo.shapes)
    num_pairs = num_looks * (num_looks - 1) // 2
    assert len(held_out_pairs(demo)) == round(0.1 * num_pairs)
    assert len(seen) == num_pairs - len(held_out_pairs(demo))  # so every other pair is trained on
    assert looks <= {look for pair in seen for look in pair}  # and each held-out look alone is, too
    shown = [has_held_out_pair(looks_of(sample_scene(demo, rng_for(0, i, "test"), "eval")), demo) for i in range(2000)]
    assert 0.05 < np.mean(shown) < 0.3


def test_crowded_train_scenes_hold_no_held_out_pair(rich: World) -> None:
    crowded = rich.model_copy(update={"max_objects": 9, "held_out_share": 0.4})
    for index in range(200):
        scene = sample_scene(crowded, rng_for(0, index, "test"), "train", (9, 9))
        assert len(scene.objects) == 9
        assert not has_held_out_pair(looks_of(scene), crowded)


@given(st.text(max_size=80))
def test_the_split_depends_on_the_string_alone(text: str) -> None:
    assert split_of(text, World()) == split_of(text, World(size=64, radius=10))


def test_the_share_of_eval_strings_is_the_configured_one(demo: World) -> None:
    share = np.mean([split_of(f"prompt {index}", demo) == "eval" for index in range(NUM)])
    assert share == pytest.approx(demo.eval_share, abs=0.01)


def test_generators_depend_on_seed_index_and_purpose() -> None:
    def draw(*key: object) -> int:
        return int(rng_for(*key).integers(2**60))  # type: ignore[arg-type]

    keys = [(seed, index, purpose) for seed in range(3) for index in range(50) for purpose in ("a", "b")]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(1, 2, "a") == draw(1, 2, "a")


PROGRAM = """
import hashlib
from dreamline.scenes.captions import sample_captioned_scene
from dreamline.scenes.edits import sample_edit
from dreamline.scenes.render import render
from dreamline.scenes.sampling import rng_for
from dreamline.scenes.world import World
world, total = World(), hashlib.sha256()
for index in range(100):
    scene, drawn = sample_captioned_scene(world, rng_for(7, index, "t"), "train")
    edit = sample_edit(world, rng_for(7, index, "e"), "train")
    for text in (drawn.text, edit.instruction):
        total.update(text.encode())
    for picture in (scene, edit.source, edit.target):
        total.update(render(picture, world).tobytes())
print(total.hexdigest())
"""


def test_samples_are_the_same_in_every_process() -> None:
    digests = set()
    for seed in ("1", "2"):
        path = os.pathsep.join(part for part in sys.path if part)
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_rendering_is_deterministic(world: World) -> None:
    scene = sample_scene(world, rng_for(0, 0, "test"), "eval")
    assert (render(scene, world) == render(scene, world)).all()
