"""The probe: what the reward and the exact judge say of the same pictures, alike for any number of workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamline.engine.world import World as Workers
from dreamline.model.config import UNetConfig
from dreamline.model.generator import Generator, Sampling
from dreamline.model.unet import build_for
from dreamline.scenes.benchmark import edit_items, generation_items
from dreamline.scenes.render import render
from rl.config import ProbeConfig
from rl.probe import Probe

ENCODERS = Path(__file__).parents[2] / "assets" / "encoders"
CONFIG = ProbeConfig(every=5, num_items=12, num_steps=2)


class Brightness:
    """Mean of the picture, and of the source where there is one."""

    def score(self, images, prompts, sources=None):
        assert len(images) == len(prompts)
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        bright = images.mean(dim=(1, 2, 3))
        return bright if sources is None else bright + sources.mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class Alone(Workers):
    """One of several workers whose numbers are averaged by the test."""

    def mean(self, values):
        return values


@pytest.fixture(scope="module")
def generator() -> Generator:
    unet = build_for(UNetConfig(block_out_channels=(16, 32), norm_num_groups=8), ENCODERS, (32, 32), seed=0)
    return Generator(unet, ENCODERS, torch.device("cpu"))


class Perfect:
    """Draws what was asked."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.answers = {item.prompt: item.reference for item in generation_items(CONFIG.world, 12, CONFIG.seed)}
        self.targets = [item.target for item in edit_items(CONFIG.world, 12, CONFIG.seed)]

    def pictures(self, prompts, seeds, sampling: Sampling, sources=None):
        scenes = [self.answers[prompt] for prompt in prompts] if sources is None else self.targets
        return np.stack([render(scene, CONFIG.world) for scene in scenes])


def test_right_pictures_count_as_right() -> None:
    told = Probe(Perfect(), Brightness(), CONFIG, Workers())(5)  # type: ignore[arg-type]
    assert told["exact_generation"] == told["exact_editing"] == 1.0
    assert 0 < told["judged_generation"] < told["judged_editing"]


def test_looks_only_at_its_own_steps(generator: Generator) -> None:
    assert Probe(generator, Brightness(), CONFIG, Workers())(7) == {}


def test_two_workers_tell_what_one_tells(generator: Generator) -> None:
    one = Probe(generator, Brightness(), CONFIG, Workers())(10)
    halves = [Probe(generator, Brightness(), CONFIG, Alone(rank, 2))(10) for rank in range(2)]
    assert set(one) == {f"{kind}_{task}" for kind in ("exact", "judged") for task in ("generation", "editing")}
    for name, value in one.items():
        assert np.mean([half[name] for half in halves]) == pytest.approx(value, abs=1e-6)


def test_follows_the_weights(generator: Generator) -> None:
    probe = Probe(generator, Brightness(), CONFIG, Workers())
    before = probe(5)["judged_generation"]
    with torch.no_grad():
        generator.unet.conv_out.bias += 0.5
    assert probe(5)["judged_generation"] != before
