"""The report of a small workspace: complete, self-contained, safe, and not blank in a browser."""

import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.config import DataJob, DataStage
from dreamline.config import Job, dump
from dreamline.result import METRICS, write_result
from dreamline.scenes.benchmark import edit_items, generation_items, score_edit, score_generation
from dreamline.scenes.detector import detect_many
from dreamline.scenes.render import render
from dreamline.scenes.sampling import sample_scene
from evaluation.config import EvaluationJob, EvaluationStage, SamplingConfig
from evaluation.scenes import Judged, summarise, write_samples
from flows.report import write_report
from training.config import TrainJob, TrainStage

CHROMIUM = shutil.which("chromium")
# Chance that a stage draws or edits right, for the two tasks.
SKILL = {"t2i": (0.6, 0.0), "edit": (0.05, 0.7), "joint": (0.7, 0.85), "dmd2": (0.75, 0.9)}
HOSTILE = '<script>alert("x")</script> & co'


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> tuple[Path, dict]:
    """A preset folder with data, four trained stages and a reward model, and the summary of them."""
    preset_dir = tmp_path_factory.mktemp("workspace") / "demo"
    stages = [_data(preset_dir)]
    for number, name in enumerate(SKILL):
        stages.append(_trained(preset_dir, name, number))
    stages.insert(-1, _trained(preset_dir, "reward", 9, series=("loss", "loss_reading", "pair_accuracy_editing")))
    looks = [f"{kind}_{task}" for kind in ("exact", "judged") for task in ("generation", "editing")]
    stages[-1:-1] = [_trained(preset_dir, name, 10, series=("loss", *looks)) for name in ("refl", "unguarded")]
    naive = {"name": "joint-naive", "metrics": {}, "evaluation_dir": stages[3]["evaluation_dir"]}
    pair = {"before": "joint-naive", "after": "dmd2", "task": "editing", "num_items": 60}
    pairs = [{**pair, "difference": 0.05, "low": 0.01, "high": 0.09}]
    pairs += [{**pair, "before": "joint", "difference": 0.05, "low": -0.01, "high": 0.11}]
    summary = {"commit": "0123456789ab", "preset": "demo", "stages": stages}
    return preset_dir, {**summary, "comparisons": pairs, "extra_evaluations": [naive]}


@pytest.fixture(scope="module")
def page(workspace) -> str:
    return write_report(*workspace).read_text()


def test_shows_scores_pictures_categories_curves_data_and_settings(page, workspace) -> None:
    _, summary = workspace
    for stage in summary["stages"]:
        assert f"<strong>{stage['name']}</strong>" in page
        assert f"<summary>{stage['name']}: config.yaml</summary>" in page
    generation = summary["stages"][-1]["metrics"]["scenes/generation"]
    assert f"<strong>{100 * generation:.0f}</strong>" in page
    assert page.count('class="row"') == 8 + 8  # every kept item once, with all its stages
    assert page.count('<figure class="ok">') + page.count('<figure class="wrong">') == 16 * len(SKILL)
    assert "color attribution" in page
    assert "edit lowered generation by" in page
    assert "pair accuracy editing" in page
    assert page.count("<svg") == 1 + len(SKILL) + 3 + 2 + 4
    assert "12,000 samples of 12,007 inputs" in page


def test_shows_what_changed_and_whether_the_reward_tells_the_truth(page) -> None:
    table = page[page.index('id="changes"') : page.index('id="hacking"')]
    assert re.findall(r"better|worse|no difference seen", table) == ["better", "no difference seen"]
    assert "+1.0 to +9.0" in table
    assert '<span class="muted small">4 steps</span>' in table
    contrast = page[page.index('id="hacking"') : page.index('id="samples"')]
    assert contrast.count("<svg") == 4
    assert contrast.count(">unguarded</span>") == 2


def test_is_self_contained_and_well_formed(page) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)=["'](?!data:image/png|#)""", page)
    assert not re.search(r"url\(|@import|<script|<link|<iframe", page)
    _Nesting().feed(page)


def test_captions_are_text_whatever_they_hold(workspace, tmp_path) -> None:
    _, summary = workspace
    samples = Path(summary["stages"][1]["evaluation_dir"]) / "samples" / "samples.json"
    kept = samples.read_text()
    try:
        listing = json.loads(kept)
        samples.write_text(json.dumps([{**entry, "prompt": HOSTILE} for entry in listing]))
        page = write_report(tmp_path, summary).read_text()
    finally:
        samples.write_text(kept)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_a_run_that_has_only_begun_still_gets_a_report(tmp_path) -> None:
    entry = {"name": "data", "run_dir": "runs/data/x", "wall_s": 1.5, "checkpoint": None, "mlflow_version": None}
    summary = {"commit": "", "preset": "smoke", "stages": [{**entry, "metrics": {}}]}
    page = write_report(tmp_path, summary).read_text()
    assert "No stage has been evaluated yet." in page
    assert "not run" in page


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("width", "height"), [(1280, 2400), (390, 1600)])
def test_a_browser_shows_it(page, workspace, tmp_path, width, height) -> None:
    report, picture = workspace[0] / "report.html", tmp_path / "page.png"
    own = [f"--user-data-dir={tmp_path}/profile", f"--window-size={width},{height}", f"--screenshot={picture}"]
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *own, report.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert pixels.shape[:2] == (height, width)
    painted = np.abs(pixels - pixels[2, 2]).sum(axis=2) > 30
    assert painted.mean() > 0.03
    assert painted[: height // 4].any()
    assert painted[-height // 4 :].any()
    saturated = pixels.max(axis=2) - pixels.min(axis=2) > 100
    assert saturated.mean() > 0.002  # the drawn shapes themselves


class _Nesting(HTMLParser):
    """Fails on a tag that is closed out of order."""

    VOID = {"meta", "img", "br", "line", "circle", "polyline"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def _data(preset_dir: Path) -> dict:
    run_dir = preset_dir / "runs" / "data" / "demo-aa"
    job = DataJob(preset="demo", run_dir=str(run_dir), stage=DataStage(num_t2i=12000, num_edit=12000))
    counts = {"single_object": 2000, "counting": 4000, "position": 6000}
    info = {"kind": "t2i", "num_samples": 12000, "num_inputs": 12007, "width": 32, "height": 32, "shards": [{}] * 12}
    info |= {"fingerprint": "ab" * 32, "statistics": {"category": counts}, "rejected": {"duplicate": 7}}
    (run_dir / "t2i").mkdir(parents=True)
    (run_dir / "t2i" / "dataset.json").write_text(json.dumps(info))
    return _entry(job, "data", outputs={"t2i": "t2i"})


def _trained(preset_dir: Path, name: str, number: int, series: tuple[str, ...] = ("loss",)) -> dict:
    run_dir = preset_dir / "runs" / name / "demo-bb"
    optim = {"lr": 1e-3}
    stage = TrainStage(name=name, steps=200, micro_batch_size=8, global_batch_size=8, mixture={"t2i": 1}, optim=optim)
    job = TrainJob(preset="demo", run_dir=str(run_dir), stage=stage)
    run_dir.mkdir(parents=True)
    rng = np.random.default_rng(number)
    sizes = [1, 0.05, 1, 1, 1]
    rows = [
        {"step": step, "lr": 1e-3}
        | {
            key: size * (np.exp(-step / 60) + 0.2 + 0.05 * rng.random())
            for key, size in zip(series, sizes, strict=False)
        }
        for step in range(2, 201, 2)
    ]
    (run_dir / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = {
        "train/steps": 200.0,
        "train/samples_seen": 1600.0,
        "train/samples_per_s": 250.0,
        "train/data_wait": 0.02,
    }
    entry = _entry(job, name, metrics=metrics, mlflow_version=str(number + 1))
    if name in SKILL:
        entry |= _evaluate(preset_dir, name, entry["metrics"])
    return entry


def _evaluate(preset_dir: Path, name: str, metrics: dict) -> dict:
    """Verdicts and pictures as the evaluation writes them, of a model that fails by drawing another scene."""
    folder = preset_dir / "runs" / f"eval-{name}" / "demo-cc"
    stage = EvaluationStage(num_prompts=60, num_edits=60, num_samples=8, sampling=SamplingConfig(num_steps=4))
    world, rng = stage.world, np.random.default_rng(3)
    drawn, edited = SKILL[name]
    judged = []
    generations, edits = generation_items(world, 60, 0), edit_items(world, 60, 0)
    for skill, items, wanted in (
        (drawn, generations, [item.reference for item in generations]),
        (edited, edits, [item.target for item in edits]),
    ):
        scenes = [scene if rng.random() < skill else sample_scene(world, rng, "train") for scene in wanted]
        images = np.stack([render(scene, world) for scene in scenes])
        for number, (item, image, seen) in enumerate(zip(items, images, detect_many(images, world), strict=True)):
            if items is generations:
                judged.append(Judged("generation", number, item, image, {"correct": score_generation(item, seen)}))
            else:
                score = score_edit(item, seen)
                verdicts = {"correct": score.both, "followed": score.followed, "preserved": score.preserved}
                judged.append(Judged("editing", number, item, image, verdicts))
    (folder / "samples").mkdir(parents=True)
    write_samples(folder / "samples", judged, stage)
    (folder / "records.jsonl").write_text("".join(json.dumps(item.record()) + "\n" for item in judged))
    dump(EvaluationJob(preset="demo", run_dir=str(folder), stage=stage), folder / "config.yaml")
    return {"evaluation_dir": str(folder), "metrics": {**metrics, **summarise(judged)}}


def _entry(job: Job, name: str, **fields) -> dict:
    dump(job, Path(job.run_dir) / "config.yaml")
    result = write_result(job, name, time.time() - 75, **fields)
    shown = {"wall_s": result.wall_s, "mlflow_version": result.mlflow_version, "metrics": result.metrics}
    return {"name": name, "run_dir": job.run_dir, "checkpoint": None, **shown}
