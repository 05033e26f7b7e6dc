"""Embeddings are kept beside the manifest, so that later builds find duplicates of what the data set holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from data_prep.build.config import BuildConfig
from data_prep.build.progress import Step
from data_prep.build.run import Outcome, run_build
from data_prep.build.verify import collect_garbage, verify
from dreamline.config import ConfigError

Make = Callable[..., BuildConfig]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(2)
    ViTModel(
        ViTConfig(
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            patch_size=4,
        )
    ).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def keys(outcome: Outcome) -> set[str]:
    folder = Path(outcome.location)
    tables = [pq.read_table(folder / entry.name, columns=["key"]) for entry in outcome.info.manifests]
    return {key for table in tables for key in table.column("key").to_pylist()}


def test_later_builds_are_compared_with_what_is_held(
    tmp_path: Path, model: Path, configured: Make, pictures: Any, make_jpeg: Any, make_picture: Any
) -> None:
    folder = pictures(tmp_path / "pictures", range(6))
    rule = {"kind": "embedding_duplicates", "model": str(model), "min_cosine": 0.9999}
    out = tmp_path / "out"
    first = run_build(configured(out, folder, filters={"sets": [rule]}))
    assert first.increment.num_kept == 6
    assert first.increment.embeddings is not None
    table = pq.read_table(out / first.increment.embeddings.name)
    assert set(table.column("key").to_pylist()) == keys(first)
    assert {len(vector) for vector in table.column("embedding").to_pylist()} == {32}
    more = pictures(tmp_path / "more", range(6, 8))
    for seed in (1, 2, 7):  # copies of what is held, and of what comes with them
        (more / f"copy {seed}.jpg").write_bytes(make_jpeg(make_picture(seed), quality=88))
    sources = [
        {"kind": "folder", "path": str(place), "caption": "filename", "name": place.name} for place in (folder, more)
    ]
    both = configured(
        out, sources=sources, filters={"sets": [rule, {"kind": "perceptual_duplicates", "max_distance": 0}]}
    )
    second = run_build(both)
    assert second.increment.rejected == {"embedding_duplicate": 3}
    assert (second.increment.num_kept, second.increment.num_ignored) == (2, 6)
    assert second.increment.evidence is not None
    lines = pq.read_table(out / second.increment.evidence.name).to_pylist()
    matched = {line["row"].rpartition("/")[2]: line["matched"] for line in lines}
    assert {matched["copy 1.jpg"], matched["copy 2.jpg"]} < keys(first)
    assert second.increment.embeddings is not None
    assert second.increment.embeddings.rows == 2
    assert verify(str(out)).ok
    assert collect_garbage(str(out)) == []
    orphan = out / "embeddings-0123456789ab.parquet"
    orphan.write_bytes(b"left behind")
    assert collect_garbage(str(out)) == [orphan.name]
    (out / first.increment.embeddings.name).write_bytes(b"damaged")
    assert any("embeddings" in problem for problem in verify(str(out)).problems)


def test_other_rules_compare_with_what_is_held_beside_embeddings(
    tmp_path: Path, model: Path, configured: Make, pictures: Any, make_jpeg: Any, make_picture: Any
) -> None:
    folder = pictures(tmp_path / "pictures", range(4))
    perceptual = {"kind": "perceptual_duplicates", "max_distance": 6}
    run_build(configured(tmp_path / "out", folder, filters={"sets": [perceptual]}))
    (folder / "copy.jpg").write_bytes(make_jpeg(make_picture(2), quality=70))
    rule = {"kind": "embedding_duplicates", "model": str(model), "min_cosine": 1.0}
    said: list[Step] = []
    second = run_build(configured(tmp_path / "out", folder, filters={"sets": [perceptual, rule]}), said.append)
    assert second.increment.rejected == {"perceptual_duplicate": 1}
    assert any("4 samples of the data set have no embeddings" in step.text for step in said)
    third = run_build(configured(tmp_path / "out", folder, filters={"sets": [rule]}))  # nothing new at all
    assert third.increment.num_ignored == 4


def test_embeddings_of_two_models_are_not_compared(
    tmp_path: Path, model: Path, configured: Make, pictures: Any
) -> None:
    folder = pictures(tmp_path / "pictures", range(3))

    def build(**changes: Any) -> Outcome:
        rule = {"kind": "embedding_duplicates", "model": str(model), "min_cosine": 0.9999, **changes}
        return run_build(configured(tmp_path / "out", folder, filters={"sets": [rule]}))

    build()
    assert build(min_cosine=0.99999).increment.num_ignored == 3
    with pytest.raises(ConfigError, match="the model of 'embedding_duplicates'"):
        build(dtype="bfloat16")
