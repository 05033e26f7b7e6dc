"""The richer preset: one world in every configuration, and a step of every stage in this process."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest

from dreamline.config import build, dump, read_yaml
from dreamline.result import ROOT, StageResult
from dreamline.scenes.captions import available_categories
from dreamline.scenes.edits import available_edit_types
from flows.stages import Plan, resolve
from training.encoders.config import Plan as EncoderPlan

pytestmark = pytest.mark.skipif(
    not (ROOT / "conf/demo-long/pipeline.yaml").is_file(),
    reason="no preset until its encoders are trained and committed",
)
TRAINED = ("t2i", "edit", "joint", "sft", "reward", "refl", "dmd2")
SMALL = [
    *(f"{name}.stage.{key}" for name in TRAINED for key in ("steps=1", "micro_batch_size=2", "global_batch_size=2")),
    *(f"{name}.runtime.{key}" for name in TRAINED for key in ("backend=local", "log_every=1", "checkpoint_every=1")),
    *(f"{name}.runtime.workers=1" for name in (*TRAINED, "data", "encode", "evaluation")),
    "dmd2.stage.regression.steps=0",
    *("data.stage.num_t2i=12", "data.stage.num_edit=12", "reward.stage.num_eval=4"),
    *("refl.stage.probe.every=1", "refl.stage.probe.num_items=8", "refl.stage.probe.num_steps=1"),
    "eval-sft.stage.num_prompts=16",
    "eval-sft.stage.num_edits=16",
    "eval-sft.stage.sampling.num_steps=1",
]


def test_every_configuration_has_the_same_world(tmp_path: Path) -> None:
    stages: dict[str, Any] = {name: stage.job.stage for name, stage in resolve("demo-long", tmp_path).stages.items()}
    world = stages["data"].world
    assert stages["reward"].world == world
    assert stages["refl"].probe.world == world
    assert all(stage.world == world for name, stage in stages.items() if name.startswith("eval-"))
    encoders = build(EncoderPlan, read_yaml(ROOT / "conf/demo-long/encoders.yaml"), "encoders.yaml")
    assert encoders.world == world
    assert world.size // encoders.vae.factor == 8
    assert {"size", "style"} <= set(available_categories(world))
    assert {"resize", "style"} <= set(available_edit_types(world))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageResult]:
    plan: Plan = resolve("demo-long", tmp_path_factory.mktemp("long"), SMALL, tracking_uri="none")
    done = {}
    for name in ("data", "encode", "t2i", "edit", "joint", "sft", "eval-sft", "reward", "refl", "dmd2"):
        stage = plan.stages[name]
        dump(stage.job, stage.run_dir / "config.yaml")
        done[name] = importlib.import_module(stage.module).run(stage.job)
    return done


def test_every_stage_takes_a_step(results: dict[str, StageResult]) -> None:
    for name in TRAINED:
        assert math.isfinite(results[name].metrics["train/loss"])
    assert results["data"].metrics["t2i/rejected"] == results["data"].metrics["edit/rejected"] == 0


def test_the_benchmark_asks_for_size_and_style(results: dict[str, StageResult]) -> None:
    asked = set(results["eval-sft"].metrics)
    assert {"scenes/generation/size", "scenes/generation/style"} <= asked
    assert {"scenes/editing/resize", "scenes/editing/style"} <= asked
