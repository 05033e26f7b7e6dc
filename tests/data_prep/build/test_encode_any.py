"""Encoding builds, local or on S3, and tars of others: files by kind and size, the values that the encoders give."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.build.run import run_build
from data_prep.config import EncodeRequest
from data_prep.encode_run import Encoding
from data_prep.index.run import index_folder
from dreamline.config import ConfigError
from dreamline.data.features import FeatureSet
from dreamline.data.index import open_index
from dreamline.data.shards import ShardReader
from dreamline.encoding.encoders import DECODE, Encoders, picture
from dreamline.encoding.on_the_fly import OnTheFly
from dreamline.encoding.settings import EncodeSettings
from dreamline.media.config import BucketConfig
from dreamline.media.decode import decode

ENCODERS = Path(__file__).parents[3] / "assets" / "encoders"
SIZES = [(200, 130), (130, 200), (160, 160), (210, 140), (170, 160)]


def asked(data: str | Path, **values: Any) -> EncodeRequest:
    return EncodeRequest(data=str(data), encoders=str(ENCODERS), **values)


def run(wanted: EncodeRequest) -> dict[str, Any]:
    return Encoding(wanted).run(lambda _: None)


def check(features: FeatureSet, data: str, size: tuple[int, int] | None = None) -> None:
    """Rows are those of the data set, and values those of the encoders."""
    index, encoders = open_index(data), Encoders.load(ENCODERS)
    samples = ShardReader(index).read(range(len(index)))
    assert features.column("key").to_pylist() == [sample.key for sample in samples]
    for row, sample in enumerate(samples):
        found = features.read(np.array([row]))
        bucket = features.buckets[features.bucket[row]]
        expected = encoders.encode([sample], bucket[:2], 1)
        assert (found.keys, found.prompts) == ([sample.key], [sample.text])
        assert found.is_edit.item() == (sample.kind == "edit")
        torch.testing.assert_close(found.latents, expected.latents, rtol=1e-4, atol=1e-4)
        texts, nulls = expected.states(0)
        torch.testing.assert_close(found.text[0], torch.cat(texts), rtol=2e-3, atol=2e-3)  # stored as float16
        torch.testing.assert_close(found.null_text[0], torch.cat(nulls), rtol=2e-3, atol=2e-3)
        if expected.source_latents is not None:
            torch.testing.assert_close(found.source_latents, expected.source_latents, rtol=1e-4, atol=1e-4)
        if size is None:  # a build's pictures have the size of their bucket
            assert decode(sample.image, DECODE).pixels.shape[1::-1] == bucket[:2]


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_build_of_several_buckets(
    place: str, request: pytest.FixtureRequest, tmp_path: Path, configured: Any, make_jpeg: Any, make_picture: Any
) -> None:
    pictures = tmp_path / "shapes"
    pictures.mkdir()
    for seed, size in enumerate(SIZES):
        (pictures / f"{size[0]} by {size[1]}.jpg").write_bytes(make_jpeg(make_picture(seed, *size)))
    data = str(tmp_path / "out")
    if place == "s3":
        data = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    run_build(configured(data, pictures, image={"buckets": {"pixels": 128 * 128, "multiple": 32}}))
    if place == "s3":
        with pytest.raises(ConfigError, match=r"say where the encoded samples go \(--output"):
            Encoding(asked(data))
    summary = run(asked(data, output=str(tmp_path / "features")))
    assert (summary["samples"], summary["of"], summary["complete"]) == (5, 5, True)
    features = FeatureSet(tmp_path / "features")
    assert len(features.info.shards) == len(features.buckets) == 3
    for shard in features.info.shards:
        assert shard.latent_shape[1:] == (shard.height // 8, shard.width // 8)
        assert f"{shard.width}x{shard.height}" in shard.name
    check(features, data)
    assert "licence" in features.columns
    again = pickle.loads(pickle.dumps(features))
    assert again.read(np.array([0])).keys == features.read(np.array([0])).keys
    assert run(asked(data, output=str(tmp_path / "features")))["encoded_now"] == 0


def edit_tar(path: Path) -> None:
    """A tar as others write them: edits and captioned images of several sizes and formats."""
    rng = np.random.default_rng(0)

    def encoded(size: tuple[int, int], form: str) -> bytes:
        pixels = np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((32, 32, 1))).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize(size).save(buffer, form)
        return buffer.getvalue()

    with tarfile.open(path, "w") as tar:
        for number, (size, form) in enumerate([((96, 64), "jpeg"), ((128, 128), "webp"), ((100, 70), "png")]):
            source = encoded(size, "webp")
            members = {"source.webp": source, f"target.{form}": encoded(size, form), "txt": b"make it red"}
            for name, content in members.items():
                entry = tarfile.TarInfo(f"e{number}.{name}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        for number in range(2):
            for name, content in {"jpg": encoded((96, 64), "jpeg"), "txt": f"caption {number}".encode()}.items():
                entry = tarfile.TarInfo(f"i{number}.{name}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def test_tars_of_others(tmp_path: Path) -> None:
    data = tmp_path / "tars"
    data.mkdir()
    edit_tar(data / "part.0.tar")
    index_folder(str(data))
    with pytest.raises(ConfigError, match=r"100 x 70 px: sides must be multiples of 8; set fit"):
        run(asked(data))
    settings = EncodeSettings(text_dtype="float16", fit=BucketConfig(pixels=96 * 64, multiple=32, max_crop=0.3))
    summary = run(asked(data, settings=settings))
    assert summary["output"].startswith(f"{data}-features-")
    features = FeatureSet(summary["output"])
    assert sorted(shard.name for shard in features.info.shards) == [
        "part.0-edit-64x64.safetensors",
        "part.0-edit-96x64.safetensors",
        "part.0-t2i-96x64.safetensors",
    ]
    check(features, str(data), (0, 0))
    assert picture("x", ShardReader(open_index(data)).read([0])[0].image, (64, 64)).shape == (64, 64, 3)
    made = OnTheFly(data, ENCODERS, settings=settings)
    assert (made.fingerprint, made.order_key) == (features.fingerprint, features.order_key)
    rows = np.flatnonzero(made.bucket == made.buckets.index(features.buckets[1]))
    assert {bool(value) for value in made.is_edit[rows]} == {True, False}
    one, other = features.read(rows), pickle.loads(pickle.dumps(made)).read(rows)
    assert one.keys == other.keys
    torch.testing.assert_close(one.text, other.text, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(one.source_latents, other.source_latents, rtol=1e-4, atol=1e-4)
    assert json.loads((Path(summary["output"]) / "dataset.json").read_text())["key"]["states"] == "post-norm"


def test_another_text_of_the_same_members_is_another_key(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        texts = json.dumps({"caption": "a dog", "title": "my dog"}).encode()
        for name, content in {"0.png": buffer.getvalue(), "0.json": texts}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    index_folder(str(tmp_path), {"text": ("json.caption",)})
    output = str(tmp_path / "features")
    run(asked(tmp_path, output=output))
    index_folder(str(tmp_path), {"text": ("json.title",)})
    with pytest.raises(ConfigError, match=r"features: was encoded with other roles .*json\.caption.*now .*json\.title"):
        OnTheFly(tmp_path, ENCODERS, cache=output)
    assert OnTheFly(tmp_path, ENCODERS).read(np.array([0])).prompts == ["my dog"]
