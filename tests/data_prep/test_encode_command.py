"""`dreamline data encode`: the plan is what comes out, a run that was cut short goes on, and a killed one is usable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from data_prep.config import DataJob, EncodeRequest, load_request
from data_prep.encode_plan import amount, plan_encoding, plan_lines
from data_prep.encode_run import Encoding
from data_prep.run import run as draw
from dreamline.config import ConfigError, build
from dreamline.data.features import FeatureSet
from dreamline.encoding.on_the_fly import OnTheFly
from dreamline.encoding.settings import EncodeSettings
from dreamline.storage import hash_folder
from flows.data import app

ENCODERS = Path(__file__).parents[2] / "assets" / "encoders"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    stage = {"num_t2i": 24, "num_edit": 24, "shard_size": 8}
    draw(build(DataJob, {"preset": "test", "run_dir": str(folder), "stage": stage}, "test"))
    return folder


@pytest.mark.parametrize("kind", ["t2i", "edit"])
def test_the_plan_is_what_comes_out(data: Path, tmp_path: Path, kind: str) -> None:
    wanted = EncodeRequest(data=str(data / kind), output=str(tmp_path / "out"), encoders=str(ENCODERS))
    encoding = Encoding(wanted)
    plan = plan_encoding(encoding, epochs=3, num=24)
    assert not (tmp_path / "out").exists()
    assert (plan["samples"], plan["encoded_already"], plan["files"]) == (24, 0, 3)
    assert plan["buckets"] == {"32x32": 24}
    summary = encoding.run(lambda _: None)
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert plan["bytes_total"] == pytest.approx(written, rel=0.1)
    features = FeatureSet(tmp_path / "out")
    latents = 24 * int(np.prod(features.buckets[0].latent_shape)) * 4
    assert plan["bytes"]["latents"] == latents
    assert plan["different_sources"] == sum(
        len(shard.tensors["image_offsets"]) - 1 for shard in features._shards if "image_offsets" in shard.tensors
    )
    edits = 24 if kind == "edit" else 0
    assert plan["encoder_passes_saved"]["vae"] == 2 * (24 + edits)
    assert min(plan["flops_saved"].values()) > 0
    text = "\n".join(plan_lines(plan))
    assert "3 epochs save" in text
    again = plan_encoding(Encoding(wanted), epochs=1, num=4)
    assert (again["encoded_already"], again["seconds"]) == (24, 0)
    assert again["flops_saved"] == {"vae": 0, "text_encoder": 0}
    assert summary["encoded_now"] == 24


def test_the_command(data: Path, tmp_path: Path) -> None:
    def call(*more: str) -> dict[str, object]:
        command = [
            "encode",
            str(data / "t2i"),
            "--encoders",
            str(ENCODERS),
            "--output",
            str(tmp_path / "out"),
            "--json",
        ]
        result = CliRunner().invoke(app, [*command, *more])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert call("--plan", "--epochs", "2")["epochs"] == 2
    first = call("--limit", "1", "--set", "batch_size=8")  # files stay whole
    assert (first["samples"], first["complete"]) == (8, False)
    assert call("--limit", "8", "--set", "batch_size=8")["encoded_now"] == 0
    assert call("--limit", "9", "--set", "batch_size=8")["samples"] == 16
    rest = call("--set", "batch_size=8")
    assert (rest["encoded_now"], rest["complete"]) == (8, True)
    assert FeatureSet(tmp_path / "out").info.settings["text_dtype"] == "float16"
    plain = CliRunner().invoke(app, ["encode", str(data / "t2i"), "--encoders", str(ENCODERS), "--plan"])
    assert "24 samples" in plain.stdout


def test_an_interrupted_run_is_usable(data: Path, tmp_path: Path) -> None:
    """Two files of three were finished; those count."""
    settings = EncodeSettings(batch_size=4)
    wanted = EncodeRequest(data=str(data / "edit"), output=str(tmp_path), encoders=str(ENCODERS), settings=settings)

    class Killed(Exception):
        pass

    def kill(step: object) -> None:
        if getattr(step, "done", 0) == 16:
            raise Killed

    whole = tmp_path / "whole"
    Encoding(wanted.model_copy(update={"output": str(whole)})).run(lambda _: None)
    cut = wanted.model_copy(update={"output": str(tmp_path / "cut")})
    with pytest.raises(Killed):
        Encoding(cut).run(kill)
    assert FeatureSet(tmp_path / "cut", partial=True).info.num_samples == 16
    rows = np.array([0, 9, 23])
    made = OnTheFly(data / "edit", ENCODERS, cache=tmp_path / "cut").read(rows)
    expected = FeatureSet(whole).read(rows)
    torch.testing.assert_close(made.text, expected.text, rtol=1e-4, atol=1e-5)
    assert Encoding(cut).run(lambda _: None)["encoded_now"] == 8
    assert torch.equal(FeatureSet(tmp_path / "cut").read(rows).text, expected.text)


@pytest.mark.parametrize("ending", ["safetensors", "rows", "arrow", "json"])
def test_what_is_damaged_is_made_again(data: Path, tmp_path: Path, ending: str) -> None:
    wanted = EncodeRequest(data=str(data / "t2i"), output=str(tmp_path), encoders=str(ENCODERS))
    Encoding(wanted).run(lambda _: None)
    before = hash_folder(tmp_path)
    path = sorted(tmp_path.glob(f"*.{ending}"))[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert Encoding(wanted).run(lambda _: None)["encoded_now"] == 8
    assert hash_folder(tmp_path) == before


def test_how_it_is_carried_out_is_not_in_the_key(data: Path, tmp_path: Path) -> None:
    def key(**values: object) -> dict[str, object]:
        told = {"data": str(data / "t2i"), "encoders": str(ENCODERS), "output": str(tmp_path), **values}
        return Encoding(EncodeRequest.model_validate(told)).key

    assert key() == key(num_workers=2, num_threads=2, limit=5, output=str(tmp_path / "other"))
    assert key() != key(data=str(data / "edit"))


def test_wrong_requests(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="text_dtype"):
        load_request(str(data / "t2i"), "", str(ENCODERS), ["text_dtype=int8"], None, 1)
    with pytest.raises(ConfigError, match=r"--output s3://bucket/x: .* give a local folder"):
        Encoding(EncodeRequest(data=str(data / "t2i"), output="s3://bucket/x", encoders=str(ENCODERS)))
    with pytest.raises(ConfigError, match=r"no dataset\.json"):
        Encoding(EncodeRequest(data=str(tmp_path), encoders=str(ENCODERS)))
    with pytest.raises(ConfigError, match="no vae/ there"):
        Encoding(EncodeRequest(data=str(data / "t2i"), encoders=str(tmp_path)))


def test_amounts() -> None:
    units = ("B", "kB", "MB")
    shown = [amount(number, units) for number in (999, 1500, 2.5e6, 3e9)]
    assert shown == ["999 B", "1.50 kB", "2.50 MB", "3000.00 MB"]
