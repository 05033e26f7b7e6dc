"""Encoded sets and mixtures: what is written is what a batch holds, at any position, in exact proportion."""

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from data_prep.features import content_fingerprint, is_encoded, publish_features, shard_entry, write_features
from dreamline.config import ConfigError
from dreamline.data.encoded import FeaturesInfo
from dreamline.data.features import Bucket, FeatureSet
from dreamline.data.mixture import Mixture
from dreamline.data.sample import Kind, Sample
from dreamline.encoding.encoders import Encoded
from dreamline.encoding.settings import EncodeSettings, Precision

WIDTH = 6


def sample(kind: Kind, index: int) -> Sample:
    source = b"png" if kind == "edit" else None
    return Sample(f"{kind}-{index}", kind, f"prompt {index}", "label", {"n": index}, 32, 32, b"png", source)


def encoded(kind: Kind, start: int, num: int) -> Encoded:
    """Samples whose encoded values say who they are: number + 0.25 in texts, image number + 0.5 in image states."""
    numbers = range(start, start + num)
    latents = torch.stack([torch.full((2, 4, 4), float(i)) for i in numbers])
    texts = [torch.full((2 + i % 5, WIDTH), i + 0.25) for i in numbers]
    samples = [sample(kind, i) for i in numbers]
    if kind == "t2i":
        return Encoded(samples, latents, texts, [torch.full((5, WIDTH), -1.0)])
    index = [(i - start) // 2 for i in numbers]  # two edits of each image
    images = [torch.full((3, WIDTH), start + i + 0.5) for i in range(max(index) + 1)]
    nulls = [torch.full((1 + i % 2, WIDTH), -(start + i) - 0.75) for i in range(max(index) + 1)]
    return Encoded(samples, latents, texts, nulls, latents + 100, images, index)


def write(content: Encoded, folder: Path, stem: str, start: int, dtype: Precision = "float16") -> None:
    rows = range(start, start + len(content.samples))
    texts = {name: [getattr(sample, name) for sample in content.samples] for name in ("key", "text", "label")}
    table = pa.table({"row": list(rows), **texts, "n": list(rows)})
    write_features(content, table, folder, stem, "plan", EncodeSettings(text_dtype=dtype))


def publish(folder: Path, kind: Kind, stems: list[str], num_rows: int, dim: int = WIDTH) -> FeaturesInfo:
    entries = [shard_entry(folder, stem, kind, (32, 32)) for stem in stems]
    fingerprint = content_fingerprint(entries)
    about = {"name": "x", "plan": "plan", "text_dim": dim, "parents": {}, "key": {}, "settings": EncodeSettings()}
    return publish_features(folder, entries, num_rows=num_rows, names=(fingerprint, fingerprint), **about)


def write_set(folder: Path, kind: Kind, sizes: list[int], dtype: Precision = "float16") -> FeaturesInfo:
    start, stems = 0, []
    for number, num in enumerate(sizes):
        stems.append(f"x-{kind}-{number:06d}")
        write(encoded(kind, start, num), folder, stems[-1], start, dtype)
        start += num
    return publish(folder, kind, stems, start)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[FeatureSet, FeatureSet]:
    folder = tmp_path_factory.mktemp("sets")
    write_set(folder / "t2i", "t2i", [7, 4])
    write_set(folder / "edit", "edit", [6, 5, 2])
    return FeatureSet(folder / "t2i"), FeatureSet(folder / "edit")


def test_feature_set(sets: tuple[FeatureSet, FeatureSet]) -> None:
    t2i, edit = sets
    assert (len(t2i), len(edit)) == (11, 13)
    assert t2i.buckets == (Bucket(32, 32, (2, 4, 4)),)
    assert not t2i.is_edit.any()
    assert edit.is_edit.all()
    assert t2i.columns == ("row", "key", "text", "label", "n")
    assert edit.column("n").to_pylist() == list(range(13))
    assert t2i.fingerprint != edit.fingerprint
    found = edit.read(np.array([7, 0, 12]))
    assert found.keys == ["edit-7", "edit-0", "edit-12"]
    assert found.text.shape == (3, 7, WIDTH)
    assert found.text_mask.tolist() == [[1] * 7, [1] * 5 + [0] * 2, [1] * 7]
    assert found.text[0, :, 0].tolist() == [6.5, 6.5, 6.5, 7.25, 7.25, 7.25, 7.25]  # second shard, its first image
    assert found.text[1, :, 0].tolist() == [0.5, 0.5, 0.5, 0.25, 0.25, 0, 0]
    found = edit.read(np.array([2, 12]))
    assert found.null_text[0, :, 0].tolist() == [1.5, 1.5, 1.5, -1.75, -1.75]
    assert found.null_text[1, :, 0].tolist() == [11.5, 11.5, 11.5, -11.75, 0]
    assert found.null_mask[1].tolist() == [1, 1, 1, 1, 0]
    assert t2i.read(np.array([0, 10])).null_text[:, :, 0].tolist() == [[-1.0] * 5] * 2


def test_a_set_that_lacks_samples(tmp_path: Path) -> None:
    for start, stem in ((4, "b"), (0, "a")):  # rows lie in any order, and not all of them
        write(encoded("edit", start, 3), tmp_path, stem, start)
    publish(tmp_path, "edit", ["b", "a"], 7)
    with pytest.raises(ConfigError, match="6 of 7 samples are encoded"):
        FeatureSet(tmp_path)
    features = FeatureSet(tmp_path, partial=True)
    assert features.has(np.arange(7)).tolist() == [True] * 3 + [False] + [True] * 3
    assert features.read(np.array([5, 1])).keys == ["edit-5", "edit-1"]
    with pytest.raises(ValueError, match="rows \\[3\\] are not encoded"):
        features.read(np.array([3]))
    write(encoded("edit", 3, 1), tmp_path, "c", 3)
    publish(tmp_path, "edit", ["b", "a", "c"], 7)
    assert FeatureSet(tmp_path).column("n").to_pylist() == list(range(7))


def test_version_1_is_read(tmp_path: Path) -> None:
    info = write_set(tmp_path, "edit", [6, 5])
    now = FeatureSet(tmp_path).read(np.arange(11))
    old = {name: getattr(info, name) for name in ("name", "plan", "fingerprint", "text_dim", "num_samples", "parents")}
    names = ("name", "sha256", "samples", "size", "records")
    old["shards"] = [{name: getattr(shard, name) for name in names} for shard in info.shards]
    old |= {"schema_version": 1, "kind": "edit", "width": 32, "height": 32, "latent_shape": [2, 4, 4]}
    (tmp_path / "dataset.json").write_text(json.dumps(old))
    for path in [*tmp_path.glob("*.arrow"), *tmp_path.glob("*.rows")]:
        path.unlink()
    features = FeatureSet(tmp_path)
    found = features.read(np.arange(11))
    assert (found.keys, features.order_key) == (now.keys, info.fingerprint)
    assert torch.equal(found.text, now.text)
    assert features.column("facts")[7].as_py() == '{"n":7}'


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_types(tmp_path: Path, dtype: Precision) -> None:
    write_set(tmp_path, "edit", [6], dtype)
    found = FeatureSet(tmp_path).read(np.array([5]))
    assert found.text[0, :, 0].tolist() == [2.5, 2.5, 2.5, 5.25, 5.25]


def test_batch_holds_what_its_positions_say(sets: tuple[FeatureSet, FeatureSet]) -> None:
    mixture = Mixture([(sets[0], 2), (sets[1], 1)], seed=5)
    positions = [40, 3, 17, 18, 19, 100]
    batch = mixture.batch(positions)
    components, rows = mixture.locate(positions)
    assert batch.index.tolist() == positions
    assert batch.is_edit.tolist() == [bool(component) for component in components]
    assert batch.text_mask.dtype == torch.int64
    assert batch.text.dtype == batch.latents.dtype == torch.float32
    for i, (component, row) in enumerate(zip(components, rows, strict=True)):
        assert batch.keys[i] == f"{'edit' if component else 't2i'}-{row}"
        assert batch.prompts[i] == f"prompt {row}"
        assert torch.equal(batch.latents[i], torch.full((2, 4, 4), float(row)))
        assert torch.equal(batch.source_latents[i], torch.full((2, 4, 4), row + 100.0 if component else 0.0))
        alone = sets[component].read(np.array([row]))
        length = alone.text.shape[1]
        assert torch.equal(batch.text[i, :length], alone.text[0])
        assert not batch.text[i, length:].any()
        assert batch.text_mask[i].sum() == length == alone.text_mask.sum()
        assert torch.equal(batch.null_text[i][batch.null_mask[i].bool()], alone.null_text[0])
    assert batch.time_ids.tolist() == [[32.0, 32.0]] * 6
    assert batch.to("cpu").keys == batch.keys
    assert len(batch) == 6


@given(
    weights=st.lists(st.sampled_from([1.0, 2.0, 0.5, 3.0]), min_size=2, max_size=2),
    micro=st.sampled_from([1, 2, 5]),
    world=st.sampled_from([1, 2, 3]),
)
@settings(max_examples=25, deadline=None)
def test_every_sample_once_per_epoch_for_any_split(
    sets: tuple[FeatureSet, FeatureSet], weights: list[float], micro: int, world: int
) -> None:
    mixture = Mixture(list(zip(sets, weights, strict=True)), seed=1)
    drawn: list[str] = []
    step = 0
    while len(drawn) < 90:
        for rank in range(world):
            start = (step * world + rank) * micro
            drawn += mixture.batch(range(start, start + micro)).keys
        step += 1
    for features in sets:
        own = [key for key in drawn if key.startswith("edit" if features.is_edit[0] else "t2i")]
        for epoch in range(len(own) // len(features)):
            assert sorted(own[epoch * len(features) :][: len(features)]) == sorted(features.column("key").to_pylist())
    share = weights[0] / sum(weights)
    counts = np.cumsum([key.startswith("t2i") for key in drawn])
    assert np.abs(counts - share * np.arange(1, len(drawn) + 1)).max() < 1


def test_random_access_equals_sequential_and_a_second_reader(sets: tuple[FeatureSet, FeatureSet]) -> None:
    mixture, again = (Mixture([(sets[0], 1), (sets[1], 1)], seed=2) for _ in range(2))
    sequential = [mixture.batch(range(start, start + 4)) for start in range(0, 40, 4)]
    keys = [key for batch in sequential for key in batch.keys]
    order = np.random.default_rng(0).permutation(40).tolist()
    assert again.batch(order).keys == [keys[position] for position in order]
    assert mixture.fingerprint == again.fingerprint
    for batch, start in zip(sequential, range(0, 40, 4), strict=True):
        other = again.batch(range(start, start + 4))
        assert torch.equal(batch.text, other.text)
        assert torch.equal(batch.null_mask, other.null_mask)


def test_fingerprint_follows_settings(sets: tuple[FeatureSet, FeatureSet]) -> None:
    prints = {
        Mixture([(sets[0], 1)], 0).fingerprint,
        Mixture([(sets[0], 1)], 1).fingerprint,
        Mixture([(sets[1], 1)], 0).fingerprint,
        Mixture([(sets[0], 1), (sets[1], 1)], 0).fingerprint,
        Mixture([(sets[0], 2), (sets[1], 1)], 0).fingerprint,
    }
    assert len(prints) == 5


def test_wrong_mixtures(sets: tuple[FeatureSet, FeatureSet]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Mixture([], 0)
    with pytest.raises(ValueError, match="positive"):
        Mixture([(sets[0], 0)], 0)
    with pytest.raises(ValueError, match="position"):
        Mixture([(sets[0], 1)], 0).batch([])


def test_writing_is_reproducible_and_resumable(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_set(tmp_path / name, "edit", [6, 5])
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        assert len(files) == 9
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert is_encoded(tmp_path / "a", "x-edit-000000", "plan")
    assert not is_encoded(tmp_path / "a", "x-edit-000000", "other plan")
    assert not is_encoded(tmp_path / "a", "x-edit-000009", "plan")
    shard = tmp_path / "a" / "x-edit-000000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8] + b"\0" * 8)
    assert not is_encoded(tmp_path / "a", "x-edit-000000", "plan")


def test_images_are_stored_once(tmp_path: Path) -> None:
    write_set(tmp_path, "edit", [6])
    shard = load_file(tmp_path / "x-edit-000000.safetensors")
    assert shard["image_text"].shape == (9, WIDTH)
    assert shard["image_offsets"].tolist() == [0, 3, 6, 9]
    assert shard["image_index"].tolist() == [0, 0, 1, 1, 2, 2]
    assert shard["text"].dtype == torch.float16


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    wrong = encoded("t2i", 0, 3)
    wrong.texts[1][0] = 1e6
    with pytest.raises(ValueError, match=r"sample t2i-1: .*float16"):
        write(wrong, tmp_path, "x", 0)
    write(wrong, tmp_path, "x", 0, "bfloat16")


def test_damaged_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not finished"):
        FeatureSet(tmp_path)
    write_set(tmp_path, "t2i", [4])
    info = json.loads((tmp_path / "dataset.json").read_text())
    info["schema_version"] = 0
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(ConfigError, match="schema 0"):
        FeatureSet(tmp_path)
    write_set(tmp_path, "t2i", [4])
    shard = tmp_path / "x-t2i-000000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(ConfigError, match="x-t2i-000000"):
        FeatureSet(tmp_path)
    write_set(tmp_path, "t2i", [4])
    (tmp_path / "x-t2i-000000.arrow").write_bytes(b"ARROW1")
    with pytest.raises(ConfigError, match=r"x-t2i-000000\.arrow: cannot be read .*run the encode job again"):
        FeatureSet(tmp_path).column("n")
    (tmp_path / "x-t2i-000000.arrow").unlink()
    with pytest.raises(ConfigError, match=r"x-t2i-000000\.arrow: cannot be read"):
        FeatureSet(tmp_path).column("n")


def test_gathering_is_fast(tmp_path: Path) -> None:
    def large(kind: Kind, num: int) -> None:
        samples = [sample(kind, i) for i in range(num)]
        latents, texts = torch.randn(num, 8, 4, 4), [torch.randn(20, 96) for _ in range(num)]
        if kind == "t2i":
            content = Encoded(samples, latents, texts, [torch.randn(5, 96)])
        else:
            nulls, images = ([torch.randn(n, 96) for _ in range(num)] for n in (6, 18))
            content = Encoded(samples, latents, texts, nulls, -latents, images, list(range(num)))
        write(content, tmp_path / kind, "x", 0)
        publish(tmp_path / kind, kind, ["x"], num, 96)

    large("t2i", 2000)
    large("edit", 2000)
    mixture = Mixture([(FeatureSet(tmp_path / "t2i"), 1), (FeatureSet(tmp_path / "edit"), 1)], 0)
    mixture.batch(range(64))
    rates = []
    for repeat in range(3):
        started = time.process_time()
        for step in range(40):
            mixture.batch(range((repeat * 40 + step) * 64, (repeat * 40 + step + 1) * 64))
        rates.append(40 * 64 / (time.process_time() - started))
    print(f"{max(rates):.0f} samples per CPU second")
    assert max(rates) > 10_000
