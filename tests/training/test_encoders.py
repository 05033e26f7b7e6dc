"""The script that makes the frozen parts, and the committed result of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dreamline.config import ConfigError, build, read_yaml
from dreamline.model.prompts import IMAGE_SIDE
from dreamline.model.text import TextEncoder, load_processor
from dreamline.model.vae import encode, load_vae
from dreamline.scenes.captions import sample_captioned_scene
from dreamline.scenes.facts import Facts, ObjectFact
from dreamline.scenes.render import render
from dreamline.scenes.sampling import rng_for
from dreamline.scenes.world import SceneObject, World
from dreamline.storage import hash_folder
from training.encoders.build import build_encoder, build_tokenizer, save_frame
from training.encoders.config import Plan
from training.encoders.examples import (
    content,
    edit_examples,
    generation_examples,
    read_facts,
    read_scene,
    state_facts,
)
from training.encoders.language import last_states, tokenise
from training.encoders.measure import measure_encoder
from training.encoders.run import make_encoders
from training.encoders.vae import draw, measure_vae

# Below what PROVENANCE.json says, by what fewer items and a reader with a quarter of the training cost.
BARS = {
    "answer/generation": 0.93,
    "answer/edit": 0.65,
    "reading/position": 0.95,
    "reading/attribution": 0.85,
    "reading/edit": 0.55,
}
ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "assets/encoders"
WORLD = World()


@pytest.fixture(scope="module")
def stored() -> TextEncoder:
    return TextEncoder.from_folder(ASSETS)


SHORT = {"vae_steps": 2, "encoder_steps": 2, "num_examples": 16, "num_items": 16, "reader_steps": 2}


@pytest.mark.parametrize("config", [None, "conf/demo-long/encoders.yaml"], ids=["demo", "demo-long"])
def test_the_script_writes_a_complete_folder(tmp_path: Path, config: str | None) -> None:
    values = read_yaml(ROOT / config) if config else {}
    plan = build(Plan, values | SHORT, "test")
    made = make_encoders(tmp_path / "out", plan)
    parts = {path.name for path in (tmp_path / "out").iterdir()}
    assert parts == {"vae", "text_encoder", "tokenizer", "processor", "scheduler", "PROVENANCE.json"}
    written = json.loads((tmp_path / "out/PROVENANCE.json").read_text())
    assert written == made
    files = hash_folder(tmp_path / "out")
    files.pop("PROVENANCE.json")
    assert written["sha256"] == files
    assert written["held_out"]["text_encoder"].keys() == written["held_out"]["untrained_text_encoder"].keys()
    assert TextEncoder.from_folder(tmp_path / "out").null_generate().shape == (5, 96)
    latents = encode(load_vae(tmp_path / "out"), draw(plan.world, "train", 2, 0)[0])
    side = plan.world.size // 8
    assert latents.shape == (2, plan.vae.latent_channels, side, side)


def test_a_vae_that_does_not_fit_the_world_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"world.size 32 is no multiple of 64"):
        build(Plan, {"vae": {"encoder_blocks": [0, 1, 1, 1, 1, 1], "decoder_blocks": [1, 1, 1, 1, 1, 1]}}, "test")
    with pytest.raises(ConfigError, match="encoder_blocks has 2 levels, decoder_blocks 3"):
        build(Plan, {"vae": {"encoder_blocks": [0, 1], "decoder_blocks": [1, 1, 1]}}, "test")


def test_training_states_are_those_that_the_pipelines_read(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(0, 200)
    model = build_encoder(tokenizer, 0, 0.15).eval()
    save_frame(tokenizer, tmp_path)
    encoder = TextEncoder(model, load_processor(tmp_path))
    captions, edits = generation_examples(WORLD, 12, 3), edit_examples(WORLD, 12, 3)
    pictures = [Image.fromarray(render(example.picture, WORLD)) for example in edits if example.picture is not None]
    expected = (
        encoder._texts([example.text for example in captions]),
        encoder.edits([example.text for example in edits], encoder.look(pictures)),
    )
    for examples, rows in zip((captions, edits), expected, strict=True):
        data = tokenise(tokenizer, examples, WORLD, IMAGE_SIDE)
        with torch.no_grad():
            states = last_states(model, data)
        for state, kept, row in zip(states, data.kept, rows, strict=True):
            torch.testing.assert_close(state[:kept], row, atol=1e-4, rtol=1e-4)


def test_size_and_style_are_part_of_what_is_read() -> None:
    world = WORLD.model_copy(update={"sizes": ("small", "normal"), "styles": ("filled", "outline")})
    star = ObjectFact("circle", "red", "small")
    assert state_facts(Facts((star,), style="outline")) == "a small outlined red circle. any background."
    reading = read_facts(Facts((star,), style="outline"), world)
    item = SceneObject("circle", "red", 0, 0, "small", style="outline")
    np.testing.assert_allclose(reading.cells[:, content(item, world)], 0.25)
    loose = read_facts(Facts((star,)), world)
    np.testing.assert_allclose(loose.cells[:, content(item, world)], 0.125)
    np.testing.assert_allclose(loose.cells.sum(1), 1, rtol=1e-6)


def test_facts_become_canonical_words() -> None:
    red, blue = ObjectFact("circle", "red"), ObjectFact("square", "blue")
    assert state_facts(Facts((blue, red), "right")) == state_facts(Facts((red, blue), "left"))
    assert state_facts(Facts((red, blue), "left")) == "a red circle left of a blue square. any background."
    assert state_facts(Facts((blue, red), background="grey")) == "a red circle and a blue square. grey background."


def test_expected_cells_are_the_frequencies_of_scenes() -> None:
    red, square = ObjectFact("circle", "red"), ObjectFact("square")
    reading = read_facts(Facts((red, square), "left", "black"), WORLD)
    np.testing.assert_allclose(reading.cells.sum(1), 1, rtol=1e-6)
    circle = content(SceneObject("circle", "red", 0, 0), WORLD)
    np.testing.assert_allclose(reading.cells[:, circle], [0.5, 0, 0.5, 0])  # the left column only
    np.testing.assert_allclose(reading.cells[:, 0], 0.5, rtol=1e-6)
    assert reading.background.tolist() == [0, 0, 1]
    total, count = 0, 0
    for index in range(4000):
        scene, drawn = sample_captioned_scene(WORLD, rng_for(0, index, "test"), "train", "counting")
        if len(drawn.facts.objects) == 1 and drawn.facts.objects[0].count == 2:
            total, count = total + read_scene(scene, WORLD).cells[:, 0], count + 1
    np.testing.assert_allclose(total / count, 0.5, atol=0.06)


def test_committed_vae_keeps_scenes_readable() -> None:
    scores = measure_vae(load_vae(ASSETS), WORLD, 200, seed=7)
    assert scores["detected"] >= 0.99
    assert scores["detected_with_noise_0.1"] >= 0.98
    assert scores["psnr"] > 40
    assert scores["latent_std"] == pytest.approx(1, abs=0.1)


def test_committed_encoder_binds_what_it_reads(stored: TextEncoder) -> None:
    found = measure_encoder(stored.model, stored.tokenizer, WORLD, seed=7, num_items=120, num_train=1000, steps=300)
    for name, bar in BARS.items():
        assert found[name] >= bar, (name, found)


def test_committed_assets_are_small_and_untouched() -> None:
    files = hash_folder(ASSETS)
    files.pop("PROVENANCE.json")
    assert json.loads((ASSETS / "PROVENANCE.json").read_text())["sha256"] == files
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 3_000_000
