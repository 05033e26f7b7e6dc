"""The committed encoders of the richer preset: what they keep of sizes, styles and places."""

from __future__ import annotations

import json

import pytest
import torch

from dreamline.config import build, read_yaml
from dreamline.model.text import TextEncoder
from dreamline.model.vae import decode, encode, load_vae, to_uint8
from dreamline.result import ROOT
from dreamline.scenes.detector import detect_many
from dreamline.storage import hash_folder
from training.encoders.config import Plan
from training.encoders.measure import measure_encoder
from training.encoders.vae import draw

ASSETS = ROOT / "assets/encoders-long"
pytestmark = pytest.mark.skipif(not ASSETS.is_dir(), reason="not there yet; `make encoders-long` trains them")
PLAN = build(Plan, read_yaml(ROOT / "conf/demo-long/encoders.yaml"), "encoders.yaml")


def test_the_assets_are_small_untouched_and_of_this_plan() -> None:
    files = hash_folder(ASSETS)
    files.pop("PROVENANCE.json")
    provenance = json.loads((ASSETS / "PROVENANCE.json").read_text())
    assert provenance["sha256"] == files
    assert provenance["plan"] == PLAN.model_dump(mode="json")
    assert sum(file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()) < 3_000_000


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.97), (0.05, 0.97), (0.1, 0.95), (0.2, 0.8)])
def test_scenes_stay_readable_through_the_vae(noise: float, least: float) -> None:
    """Every shape, colour, size, style and cell, exactly; the noise is in the latents, whose scale is 1."""
    pictures, scenes = draw(PLAN.world, "eval", 200, seed=7)
    vae = load_vae(ASSETS)
    with torch.no_grad():
        latents = encode(vae, pictures)
        assert latents.shape == (200, 8, 8, 8)
        latents = latents + noise * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        found = detect_many(to_uint8(decode(vae, latents)), PLAN.world)
    assert sum(a == b for a, b in zip(found, scenes, strict=True)) / len(scenes) >= least


def test_the_text_encoder_binds_sizes_and_styles() -> None:
    stored = TextEncoder.from_folder(ASSETS)
    bars = {"reading/position": 0.9, "reading/attribution": 0.8, "reading/size": 0.9, "reading/style": 0.9}
    found = measure_encoder(stored.model, stored.tokenizer, PLAN.world, 7, num_items=120, num_train=1000, steps=300)
    for name, bar in bars.items():
        assert found[name] >= bar, (name, found)
