"""Training on pictures of two shapes, one of the sets filtered, through the real loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from data_prep.features import publish_features, shard_entry, write_features
from dreamline.config import ConfigError, Input, Runtime, build, dump
from dreamline.data.batch import Batch
from dreamline.data.sample import Kind, Sample
from dreamline.encoding.encoders import Encoded, Size
from dreamline.encoding.settings import EncodeSettings
from dreamline.engine.data import MIXTURE, StageData
from dreamline.engine.loop import positions
from dreamline.engine.stage import Assembly, run_stage
from dreamline.engine.world import World
from dreamline.model.frozen import materialise
from dreamline.result import METRICS, read_result
from training.config import TrainJob
from training.run import run
from training.worker import assemble

ENCODERS = Path(__file__).parents[2] / "assets" / "encoders"
CHANNELS, FACTOR, WIDTH = 8, 8, 96  # of the demo's encoders
SQUARE, WIDE = (32, 32), (64, 32)


def encoded(kind: Kind, size: Size, start: int, num: int) -> Encoded:
    drawn = torch.Generator().manual_seed(start)
    shape = (num, CHANNELS, size[1] // FACTOR, size[0] // FACTOR)
    latents = torch.randn(shape, generator=drawn)
    texts = [torch.randn(3 + i % 3, WIDTH, generator=drawn) for i in range(num)]
    nulls = [torch.zeros(2, WIDTH) for _ in range(num if kind == "edit" else 1)]
    samples = [Sample(f"{kind}-{start + i}", kind, f"text {i}", "", {}, *size, b"") for i in range(num)]
    if kind == "t2i":
        return Encoded(samples, latents, texts, nulls)
    images = [torch.randn(2, WIDTH, generator=drawn) for _ in range(num)]
    return Encoded(samples, latents, texts, nulls, latents.flip(3), images, list(range(num)))


def write_set(folder: Path, kind: Kind, shards: Sequence[tuple[Size, int]]) -> Input:
    """An encoded data set with one shard of each size; `score` falls from 1 to 0 over its rows."""
    folder.mkdir()
    rows = sum(num for _, num in shards)
    entries, start = [], 0
    for size, num in shards:
        content, stem = encoded(kind, size, start, num), f"{kind}-{size[0]}x{size[1]}"
        numbers = np.arange(start, start + num)
        table = pa.table(
            {
                "row": pa.array(numbers),
                "key": [sample.key for sample in content.samples],
                "text": [sample.text for sample in content.samples],
                "label": [sample.label for sample in content.samples],
                "scores.score": 1 - numbers / rows,
            }
        )
        write_features(content, table, folder, stem, "plan", EncodeSettings())
        entries.append(shard_entry(folder, stem, kind, size))
        start += num
    about = {"name": kind, "plan": "plan", "text_dim": WIDTH, "parents": {}, "key": {}, "settings": EncodeSettings()}
    publish_features(folder, entries, num_rows=rows, names=(kind, kind), **about)
    return Input(path=str(folder), digest=kind)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Input]:
    folder = tmp_path_factory.mktemp("features")
    frozen = materialise(ENCODERS, folder / "frozen")
    return {
        "photos": write_set(folder / "photos", "t2i", [(SQUARE, 12), (WIDE, 9)]),
        "edit": write_set(folder / "edit", "edit", [(SQUARE, 10), (WIDE, 2)]),
        "frozen": Input(path=str(folder / "frozen"), digest=frozen),
    }


def make_job(folder: Path, inputs: dict[str, Input], workers: int = 1, **stage: Any) -> TrainJob:
    values = {
        "name": "joint",
        "steps": 12,
        "micro_batch_size": 2,
        "global_batch_size": 4,
        "mixture": {"photos": {"weight": 2, "filter": "scores.score > 0.2"}, "edit": 1},
        "model": {"block_out_channels": [16, 32], "transformer_layers_per_block": [1, 1], "norm_num_groups": 8},
        "optim": {"lr": 1e-3},
        **stage,
    }
    runtime = Runtime(
        backend="local" if workers == 1 else "deepspeed", workers=workers, log_every=1, checkpoint_every=5
    )
    given = {"preset": "test", "run_dir": str(folder), "inputs": inputs, "runtime": runtime, "stage": values}
    return build(TrainJob, given, "joint.yaml")


class Recorder:
    """Data that remembers what was asked for."""

    def __init__(self, data: StageData, fail_at: int | None = None) -> None:
        self.data, self.identity, self.fail_at = data, data.identity, fail_at
        self.keys: list[str] = []
        self.shapes: list[tuple[int, ...]] = []

    def batch(self, positions: range) -> Batch:
        if self.fail_at is not None and positions.start >= self.fail_at:
            raise KeyboardInterrupt
        batch = self.data.batch(positions)
        self.keys += batch.keys
        self.shapes.append(tuple(batch.latents.shape[1:]))
        assert batch.time_ids.tolist() == [[8 * batch.latents.shape[3], 8 * batch.latents.shape[2]]] * len(batch)
        return batch


def train(job: TrainJob, fail_at: int | None = None) -> Recorder:
    recorders: list[Recorder] = []

    def recorded(job: TrainJob, world: World) -> Assembly:
        assembly = assemble(job, world)
        recorders.append(Recorder(assembly.data, fail_at))
        return replace(assembly, data=recorders[0])

    try:
        run_stage(job, job.stage, recorded)
    except KeyboardInterrupt:
        assert fail_at is not None
    return recorders[0]


def test_two_shapes_are_trained_on(
    tmp_path: Path, inputs: dict[str, Input], capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(tmp_path, inputs)
    seen = train(job)
    assert set(seen.shapes) == {(8, 4, 4), (8, 4, 8)}
    assert all(seen.shapes[i] == seen.shapes[i + 1] for i in range(0, 24, 2))  # both halves of a global batch
    assert sum(key.startswith("edit") for key in seen.keys) == pytest.approx(48 / 3, abs=4)
    photos = [int(key.split("-")[1]) for key in seen.keys if key.startswith("t2i")]
    assert set(photos) == set(range(17))  # 1 - row / 21 > 0.2
    result = read_result(tmp_path)
    assert result is not None
    assert np.isfinite(result.metrics["train/loss"])
    unet = json.loads((tmp_path / "checkpoint" / "unet" / "config.json").read_text())
    assert unet["sample_size"] == 4  # of the square
    report = json.loads((tmp_path / MIXTURE).read_text())
    assert report["components"]["photos"] == {
        "weight": 2.0, "filter": "scores.score > 0.2", "samples": 17, "filtered_out": 4, "share_exact_to_samples": 2,
    }  # fmt: skip
    assert [bucket["bucket"] for bucket in report["buckets"]] == ["64x32", "32x32"]
    assert report["buckets"][0]["samples"] == {"photos": 5, "edit": 2}
    assert "bucket 64x32" not in capsys.readouterr().out


def test_other_worlds_see_the_same_sequence_and_so_does_a_resumed_run(tmp_path: Path, inputs: dict[str, Input]) -> None:
    job = make_job(tmp_path / "whole", inputs)
    whole = train(job).keys
    by_position: dict[int, str] = {}
    for rank in range(2):
        world = World(rank, 2)
        data = StageData(make_job(tmp_path / "two", inputs, workers=2), job.stage, world)
        for part in positions(job.stage, world, 0, 0):
            by_position |= dict(zip(part, data.batch(part).keys, strict=True))
    assert [by_position[position] for position in range(48)] == whole
    train(make_job(tmp_path / "cut", inputs), fail_at=30)
    resumed = train(make_job(tmp_path / "cut", inputs)).keys
    assert resumed == whole[20:]  # from the state of step 5
    weights = [(tmp_path / name / "checkpoint/unet/diffusion_pytorch_model.safetensors") for name in ("whole", "cut")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_resume_on_other_data_says_what_differs(tmp_path: Path, inputs: dict[str, Input]) -> None:
    train(make_job(tmp_path, inputs), fail_at=30)
    changed = {"photos": {"weight": 2, "filter": "scores.score > 0.5"}, "edit": 3}
    with pytest.raises(ValueError, match="cannot resume") as error:
        train(make_job(tmp_path, inputs, mixture=changed, seed=1, global_batch_size=8))
    told = str(error.value)
    assert "seed was 0, is 1" in told
    assert "global_batch_size was 4, is 8" in told
    assert "mixture.edit was weight 1.0, is weight 3.0" in told
    assert "mixture.photos was weight 2.0, filter 'scores.score > 0.2' (rows " in told
    assert "fingerprint of" not in told
    with pytest.raises(ValueError, match=r"mixture\.photos was .*, is absent"):
        train(make_job(tmp_path, inputs, mixture={"edit": 1}))


def test_small_buckets_are_printed(
    tmp_path: Path, inputs: dict[str, Input], capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(tmp_path, inputs, mixture={"edit": 1})
    StageData(job, job.stage, World(1, 2))
    assert not capsys.readouterr().out
    assert not (tmp_path / MIXTURE).exists()
    StageData(job, job.stage, World(0, 2))
    told = "bucket 64x32: 2 samples, one batch in 6, which holds each of them up to 2 times: fewer than a batch needs"
    assert told in capsys.readouterr().out


def test_spellings_of_a_mixture(tmp_path: Path, inputs: dict[str, Input]) -> None:
    plain = make_job(tmp_path, inputs, mixture={"edit": 1}).stage
    long = make_job(tmp_path, inputs, mixture={"edit": {"weight": 1.0}}).stage
    filtered = make_job(tmp_path, inputs, mixture={"edit": {"filter": "scores.score > 0.5"}}).stage
    assert plain == long
    assert plain.model_dump(mode="json")["mixture"] == {"edit": 1.0}  # as it was before there were filters
    assert filtered.model_dump(mode="json")["mixture"] == {"edit": {"weight": 1.0, "filter": "scores.score > 0.5"}}
    assert build(type(plain), filtered.model_dump(mode="json"), "again") == filtered
    for wrong, told in [
        ({}, "mixture: .*at least 1"),
        ({"edit": 0}, r"mixture\.edit\.weight: .*greater than 0"),
        ({"edit": "much"}, r"mixture\.edit\.weight: .*number"),
        ({"edit": {"weigth": 1}}, r"mixture\.edit\.weigth: Extra inputs"),
        ({"edit": {"filter": "width >"}}, r"mixture\.edit\.filter: .*at character 8: expected a column or a value"),
    ]:
        with pytest.raises(ConfigError, match=told):
            make_job(tmp_path, inputs, mixture=wrong)


@pytest.mark.slow
def test_two_workers_learn_as_one_does(tmp_path: Path, inputs: dict[str, Input]) -> None:
    """One sample a worker, so in most steps only one of them has an edit to tell the loss of."""
    curves = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        job = make_job(folder, inputs, workers, micro_batch_size=1, global_batch_size=2)
        dump(job, folder / "config.yaml")
        run(job)
        curves.append([json.loads(line) for line in (folder / METRICS).read_text().splitlines()])
    for one, two in zip(*curves, strict=True):
        assert one.keys() == two.keys()
        assert all(value == pytest.approx(two[name], rel=1e-3) for name, value in one.items() if "loss" in name)
