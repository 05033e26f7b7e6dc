"""The evaluation room: scores of a perfect and of an untrained model, samples, and the picture command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dreamline.config import build
from dreamline.model.config import UNetConfig
from dreamline.model.folder import publish_pipeline
from dreamline.model.frozen import materialise
from dreamline.model.unet import build_for
from dreamline.scenes.benchmark import edit_items, generation_items, score_edit, score_generation
from dreamline.scenes.edits import EDIT_TYPES
from dreamline.scenes.render import render
from dreamline.scenes.world import World
from evaluation.config import EvaluationJob, EvaluationStage
from evaluation.run import run
from evaluation.scenes import Judged, summarise, write_samples

ROOT = Path(__file__).parents[2]
WORLD = World()


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    materialise(ROOT / "assets" / "encoders", folder / "frozen")
    unet = build_for(UNetConfig(), folder / "frozen", (32, 32), 0)
    publish_pipeline(unet, folder / "frozen", folder / "checkpoint", mobile=True)
    return folder / "checkpoint"


def perfect(number: int) -> list[Judged]:
    """What a model without a fault would get."""
    judged = []
    for i, item in enumerate(generation_items(WORLD, number, 0)):
        verdict = {"correct": score_generation(item, item.reference)}
        judged.append(Judged("generation", i, item, render(item.reference, WORLD), verdict))
    for i, item in enumerate(edit_items(WORLD, number, 0)):
        score = score_edit(item, item.target)
        verdicts = {"correct": score.both, "followed": score.followed, "preserved": score.preserved}
        judged.append(Judged("editing", i, item, render(item.target, WORLD), verdicts))
    return judged


def test_a_perfect_model_scores_one():
    metrics = summarise(perfect(60))
    for task in ("generation", "editing"):
        assert metrics[f"scenes/{task}"] == metrics[f"scenes/{task}_low"] == metrics[f"scenes/{task}_high"] == 1
        assert metrics[f"scenes/{task}/num_items"] == 60
    assert metrics["scenes/editing/followed"] == metrics["scenes/editing/preserved"] == 1
    types = {name.split("/")[2] for name in metrics if name.startswith("scenes/editing/")}
    assert types > {name for name in EDIT_TYPES if name not in ("resize", "style")}


def test_a_score_is_the_mean_of_its_categories():
    judged = [item for item in perfect(60) if item.task == "editing" or item.category != "position"]
    wrong = [item for item in perfect(60) if item.category == "position"]
    for item in wrong:
        item.verdicts["correct"] = False
    metrics = summarise(judged + wrong)
    assert metrics["scenes/generation/position"] == 0
    assert metrics["scenes/generation"] == pytest.approx(5 / 6)
    assert metrics["scenes/generation_low"] <= 5 / 6 <= metrics["scenes/generation_high"]


def test_samples_are_the_same_items_for_every_size_of_benchmark(tmp_path):
    stage = EvaluationStage(num_samples=4)
    listings = []
    for number in (24, 60):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_samples(folder, perfect(number), stage)
        listings.append(json.loads((folder / "samples.json").read_text()))
    assert [item["id"] for item in listings[0]] == [item["id"] for item in listings[1]]
    assert len(listings[0]) == 8
    edit = next(item for item in listings[0] if item["kind"] == "editing")
    for part in ("image", "source", "target"):
        assert Image.open(tmp_path / "24" / edit[part]).size == (32, 32)


def test_an_untrained_model_scores_near_zero(student, tmp_path):
    stage = {"num_prompts": 12, "num_edits": 12, "batch_size": 12, "num_samples": 2}
    stage["sampling"] = {"num_steps": 2, "guidance_scale": 1, "image_guidance_scale": 1}
    values = {"preset": "t", "run_dir": str(tmp_path), "stage": stage}
    values["inputs"] = {"checkpoint": {"path": str(student), "digest": "x"}}
    job = build(EvaluationJob, values, "test")
    result = run(job)
    assert result.metrics["scenes/generation"] <= 0.2
    assert result.metrics["scenes/editing"] <= 0.2
    records = [json.loads(line) for line in result.output("records").read_text().splitlines()]
    assert len(records) == 24
    assert {record["task"] for record in records} == {"generation", "editing"}
    before = result.output("records").stat().st_mtime_ns
    assert run(job) == result
    assert result.output("records").stat().st_mtime_ns == before


def generate(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "evaluation.generate", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_generate_and_edit_from_the_command_line(student, tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "sub" / "b.png"
    done = generate("--model", str(student), "--prompt", "a red circle", "--out", str(first), "--json", "--scale", "4")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    assert Image.open(first).size == (128, 128)
    done = generate("--model", str(student), "--prompt", "make it green", "--image", str(first), "--out", str(second))
    assert done.returncode == 0, done.stderr
    assert Image.open(second).size == (32, 32)


def test_a_broken_picture_or_folder_is_named(student, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    out = str(tmp_path / "x.png")
    done = generate("--model", str(student), "--prompt", "p", "--image", str(broken), "--out", out)
    assert done.returncode == 1
    assert "broken.png: not a readable picture" in done.stderr
    done = generate("--model", str(tmp_path), "--prompt", "p", "--out", out)
    assert "no model_index.json" in done.stderr
