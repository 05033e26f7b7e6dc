"""The encode stage: features are what the encoders say, once per image, reproducible and resumable."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.config import DataJob, DataStage, EncodeJob, EncodeStage, encoders_input
from data_prep.encode import run
from data_prep.run import run as run_data
from dreamline.config import ConfigError, Input, Runtime, dump
from dreamline.data.features import FeatureSet
from dreamline.data.index import open_index
from dreamline.data.mixture import Mixture
from dreamline.data.sample import Sample, decode_png
from dreamline.data.shards import ShardReader
from dreamline.encoding.encoders import Encoders
from dreamline.model.vae import encode, to_tensor
from dreamline.storage import hash_folder

ROOT = Path(__file__).parents[2]
ENCODERS = ROOT / "assets" / "encoders"
STAGE = EncodeStage(batch_size=6, text_dtype="float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Input]:
    folder = tmp_path_factory.mktemp("data")
    job = DataJob(preset="test", run_dir=str(folder), stage=DataStage(num_t2i=22, num_edit=20, shard_size=8))
    result = run_data(job)
    return {kind: Input(path=str(result.output(kind)), digest=job.digest()) for kind in ("t2i", "edit")}


def make_job(folder: Path, data: dict[str, Input], workers: int = 1, stage: EncodeStage = STAGE) -> EncodeJob:
    inputs = data | {"encoders": encoders_input(ENCODERS)}
    return EncodeJob(preset="test", run_dir=str(folder), inputs=inputs, runtime=Runtime(workers=workers), stage=stage)


def samples_of(folder: str) -> list[Sample]:
    index = open_index(folder)
    return ShardReader(index).read(range(len(index)))


@pytest.fixture(scope="module")
def encoded(data: dict[str, Input], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoded")
    result = run(make_job(folder, data))
    assert result.outputs == {"t2i": "t2i", "edit": "edit", "frozen": "frozen"}
    assert result.metrics["edit/samples"] == 20
    return folder


@pytest.fixture(scope="module")
def encoders(encoded: Path) -> Encoders:
    return Encoders.load(encoded / "frozen")


def test_generation_features(data: dict[str, Input], encoded: Path, encoders: Encoders) -> None:
    features, shards = FeatureSet(encoded / "t2i"), samples_of(data["t2i"].path)
    assert (len(features), features.is_edit.any()) == (22, False)
    assert [bucket[:2] for bucket in features.buckets] == [(32, 32)]
    for row in (0, 9, 21):
        sample = shards[row]
        found = features.read(np.array([row]))
        assert found.keys == [sample.key]
        assert found.prompts == [sample.text]
        assert json.loads(features.column("facts")[row].as_py()) == sample.facts
        (states,) = encoders.text.encode_generate([sample.text])
        assert found.text.shape[1] == found.text_mask.sum() == len(states)
        assert torch.allclose(found.text[0], states, atol=1e-4)
        assert torch.allclose(found.null_text[0], encoders.text.null_generate(), atol=1e-4)
        latents = encode(encoders.vae, to_tensor(decode_png(sample.image))[None])[0]
        assert torch.allclose(found.latents[0], latents, atol=1e-4)


def test_edit_features(data: dict[str, Input], encoded: Path, encoders: Encoders) -> None:
    features, shards = FeatureSet(encoded / "edit"), samples_of(data["edit"].path)
    for row in (0, 7, 13, 19):
        sample = shards[row]
        assert sample.source is not None
        picture = Image.fromarray(decode_png(sample.source))
        looks = encoders.text.look([picture])
        (states,) = encoders.text.encode_edit([sample.text], looks)
        found = features.read(np.array([row]))
        assert int(found.text_mask.sum()) == len(states)
        assert torch.allclose(found.text[0], states, atol=1e-4)
        (null,) = encoders.text.null_edit(looks)
        assert torch.allclose(found.null_text[0], null, atol=1e-4)
        source = encode(encoders.vae, to_tensor(np.asarray(picture))[None])[0]
        assert torch.allclose(found.source_latents[0], source, atol=1e-4)
        assert not torch.equal(found.source_latents, found.latents)


def test_an_image_is_encoded_once(data: dict[str, Input], encoders: Encoders) -> None:
    first, second = samples_of(data["edit"].path)[:2]
    assert first.source != second.source
    samples = [first, second, replace(second, key="x", source=first.source), replace(first, key="y", text="remove it")]
    found = encoders.encode(samples, (32, 32), batch_size=3)
    assert found.image_index == [0, 1, 0, 0]
    assert len(found.images) == len(found.nulls) == 2
    assert len(found.texts) == 4


def test_mixture_of_both(encoded: Path) -> None:
    mixture = Mixture([(FeatureSet(encoded / "t2i"), 1), (FeatureSet(encoded / "edit"), 1)], seed=0)
    batch = mixture.batch(range(8))
    assert batch.is_edit.tolist() == [False, True] * 4
    assert torch.isfinite(batch.text).all()
    assert not batch.source_latents[~batch.is_edit].any()


def test_two_ray_workers_write_the_same_bytes(data: dict[str, Input], encoded: Path, tmp_path: Path) -> None:
    dump(make_job(tmp_path, data, workers=2), tmp_path / "config.yaml")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "data_prep.encode", "--config", str(tmp_path / "config.yaml")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment | {"PYTHONPATH": str(ROOT)}, timeout=200)
    for name in ("t2i", "edit", "frozen"):
        assert hash_folder(tmp_path / name) == hash_folder(encoded / name)


def test_a_killed_job_keeps_finished_shards(data: dict[str, Input], encoded: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, data)
    run(job)
    (tmp_path / "result.json").unlink()  # as if killed before the end
    kept, lost, cut = (tmp_path / "edit" / f"scenes-edit-{number:06d}.safetensors" for number in range(3))
    lost.with_suffix(".json").unlink()
    cut.write_bytes(cut.read_bytes()[:-10])
    (tmp_path / "edit" / ".x.tmp-1").touch()
    times = kept.stat().st_mtime_ns, cut.stat().st_mtime_ns
    run(job)
    assert kept.stat().st_mtime_ns == times[0]
    assert cut.stat().st_mtime_ns != times[1]
    assert hash_folder(tmp_path / "edit") == hash_folder(encoded / "edit")
    before = (tmp_path / "result.json").stat().st_mtime_ns
    run(job)
    assert (tmp_path / "result.json").stat().st_mtime_ns == before


def test_encoders_are_part_of_the_identity(data: dict[str, Input], tmp_path: Path) -> None:
    job = make_job(tmp_path, data)
    changed = job.model_copy(update={"inputs": {**job.inputs, "encoders": Input(path=str(ENCODERS), digest="0" * 12)}})
    assert changed.digest() != job.digest()
    with pytest.raises(ConfigError, match="have changed"):
        run(changed)
    with pytest.raises(ConfigError, match="no encoders there"):
        encoders_input(tmp_path / "nothing")


def test_wrong_inputs_are_named(data: dict[str, Input], tmp_path: Path) -> None:
    swapped = {"t2i": data["edit"], "edit": data["t2i"]}
    with pytest.raises(ConfigError, match=r"inputs\.t2i: .* holds samples of kind 'edit'"):
        run(make_job(tmp_path, swapped))
