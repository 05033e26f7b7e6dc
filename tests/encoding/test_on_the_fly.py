"""Training fed from a cache, from a part of one, and without: the same samples, and losses equal up to rounding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from data_prep.config import DataJob, EncodeRequest
from data_prep.encode_run import Encoding
from data_prep.run import run as draw
from dreamline.config import ConfigError, Input, build
from dreamline.data.features import FeatureSet
from dreamline.data.sample import Kind
from dreamline.encoding import settings
from dreamline.encoding.on_the_fly import OnTheFly
from dreamline.encoding.settings import EncodeSettings, Precision
from training.config import TrainJob
from training.run import run as train

ENCODERS = Path(__file__).parents[2] / "assets" / "encoders"
KINDS: tuple[Kind, ...] = ("t2i", "edit")
STAGE = {
    "name": "joint",
    "steps": 4,
    "micro_batch_size": 4,
    "global_batch_size": 8,
    "mixture": {"t2i": 1, "edit": 1},
    "optim": {"lr": 1e-3},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    stage = {"num_t2i": 20, "num_edit": 20, "shard_size": 8}
    draw(build(DataJob, {"preset": "test", "run_dir": str(folder), "stage": stage}, "test"))
    return folder


def encode(data: Path, folder: Path, dtype: Precision = "float32", limit: int | None = None) -> dict[str, str]:
    """Encode both sets; inputs of a job."""
    how = EncodeSettings(batch_size=5, latent_dtype="float32", text_dtype=dtype)
    for kind in KINDS:
        request = EncodeRequest(
            data=str(data / kind), output=str(folder / kind), encoders=str(ENCODERS), settings=how, limit=limit
        )
        Encoding(request).run(lambda _: None)
    return {kind: str(folder / kind) for kind in KINDS}


def losses(run_dir: Path, inputs: dict[str, str]) -> list[float]:
    """Train a few steps through the real loop; the loss of each."""
    runtime = {"backend": "local", "log_every": 1}
    named = {name: Input(path=path, digest="x") for name, path in {"frozen": str(ENCODERS), **inputs}.items()}
    values = {"preset": "t", "run_dir": str(run_dir), "inputs": named, "stage": STAGE, "runtime": runtime}
    train(build(TrainJob, values, "test"))
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def cached(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], list[float]]:
    folder = tmp_path_factory.mktemp("cache")
    inputs = encode(data, folder / "features")
    found = losses(folder / "run", inputs)
    assert len(found) == 4
    return inputs, found


def test_without_a_cache(data: Path, cached: tuple[dict[str, str], list[float]], tmp_path: Path) -> None:
    found = losses(tmp_path, {kind: str(data / kind) for kind in KINDS})
    np.testing.assert_allclose(found, cached[1], rtol=1e-5)


def test_with_a_part_of_a_cache(data: Path, cached: tuple[dict[str, str], list[float]], tmp_path: Path) -> None:
    inputs = encode(data, tmp_path / "features", limit=10)
    for kind in KINDS:
        assert 0 < FeatureSet(inputs[kind], partial=True).info.num_samples < 20
    with pytest.raises(ConfigError, match="16 of 20 samples are encoded"):
        losses(tmp_path / "refused", inputs)
    found = losses(tmp_path / "run", inputs | {f"{kind}_data": str(data / kind) for kind in KINDS})
    np.testing.assert_allclose(found, cached[1], rtol=1e-5)


@pytest.mark.parametrize(("dtype", "rounding"), [("float16", 2e-3), ("bfloat16", 2e-2)])
def test_short_types(
    data: Path, cached: tuple[dict[str, str], list[float]], tmp_path: Path, dtype: Precision, rounding: float
) -> None:
    inputs = encode(data, tmp_path / "features", dtype)
    whole = losses(tmp_path / "whole", inputs)
    np.testing.assert_allclose(whole, cached[1], rtol=rounding)
    part = encode(data, tmp_path / "part", dtype, limit=10)
    found = losses(tmp_path / "run", part | {f"{kind}_data": str(data / kind) for kind in KINDS})
    np.testing.assert_allclose(found, whole, rtol=rounding / 10)


def test_values(data: Path, cached: tuple[dict[str, str], list[float]]) -> None:
    for kind in KINDS:
        read, made = FeatureSet(cached[0][kind]), OnTheFly(data / kind, ENCODERS)
        assert (made.order_key, made.buckets) == (read.order_key, read.buckets)
        rows = np.array([13, 2, 7])
        one, other = read.read(rows), made.read(rows)
        assert (one.keys, one.prompts) == (other.keys, other.prompts)
        assert read.column("label").equals(made.column("label"))
        for name in ("is_edit", "text_mask", "null_mask"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        for name in ("latents", "source_latents", "text", "null_text"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5)


def test_rounding_is_that_of_the_cache(data: Path, tmp_path: Path) -> None:
    """Alone in its batch or not, a sample has the same values but for the last bit of the stored type."""
    inputs = encode(data, tmp_path, "bfloat16", limit=10)
    mixed = OnTheFly(data / "edit", ENCODERS, cache=inputs["edit"])
    assert mixed.fingerprint == FeatureSet(inputs["edit"], partial=True).fingerprint
    found = mixed.read(np.array([0, 19, 1, 18]))
    assert torch.equal(found.text, found.text.bfloat16().float())
    assert found.keys == [mixed.index.key(row) for row in (0, 19, 1, 18)]
    alone = mixed.read(np.array([19]))
    torch.testing.assert_close(found.text[1, : alone.text.shape[1]], alone.text[0], rtol=2**-7, atol=1e-3)


def test_a_cache_of_other_encoders(cached: tuple[dict[str, str], list[float]], tmp_path: Path) -> None:
    """What is trained is published with the VAE of the job, so its samples must have gone through that one."""
    shutil.copytree(ENCODERS, tmp_path / "frozen")
    (path,) = (tmp_path / "frozen" / "vae").glob("*.safetensors")
    weights = load_file(path)
    weights[min(weights)].view(-1)[0] += 1e-3
    save_file(weights, path)
    with pytest.raises(ConfigError, match=r"t2i: was encoded with other vae \("):
        losses(tmp_path / "run", cached[0] | {"frozen": str(tmp_path / "frozen")})


def test_other_versions_of_libraries_may_read_a_cache(
    cached: tuple[dict[str, str], list[float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "version", lambda package: "0")
    assert losses(tmp_path, cached[0]) == cached[1]


def test_a_cache_of_other_data_or_settings(
    data: Path, cached: tuple[dict[str, str], list[float]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"was encoded with other data .*layout"):
        OnTheFly(data / "t2i", ENCODERS, cache=cached[0]["edit"])
    request: dict[str, Any] = {"data": str(data / "t2i"), "output": cached[0]["t2i"], "encoders": str(ENCODERS)}
    with pytest.raises(ConfigError, match=r"was encoded with other settings .*float16"):
        Encoding(EncodeRequest(**request))
    job = {"preset": "t", "run_dir": str(tmp_path), "stage": STAGE}
    named = {
        "t2i": str(data / "t2i"),
        "t2i_data": str(data / "t2i"),
        "edit": str(data / "edit"),
        "frozen": str(ENCODERS),
    }
    inputs = {name: {"path": path, "digest": "x"} for name, path in named.items()}
    with pytest.raises(ConfigError, match=r"is not encoded; then inputs\.t2i_data has no use"):
        train(build(TrainJob, {**job, "inputs": inputs}, "test"))
