"""Embeddings are kept beside the manifest, so that later builds find duplicates of what the data set holds."""

from __future__ import annotations

import json
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


def test_what_is_made_of_edits_is_compared_and_kept_like_them(
    tmp_path: Path, model: Path, configured: Make, make_jpeg: Any, make_picture: Any
) -> None:
    folder = tmp_path / "edits"
    folder.mkdir()
    lines: list[dict[str, Any]] = []

    def add(seed: int, quality: int, text: str) -> None:
        before, after = make_picture(seed), make_picture(seed)
        after[10:40, 10:50] = (20, 20, 220)
        names = [f"{seed} {quality} {side}.jpg" for side in ("clean", "red")]
        for name, pixels in zip(names, (before, after), strict=True):
            (folder / name).write_bytes(make_jpeg(pixels, quality=quality))
        source, image = names if text.startswith("add") else names[::-1]
        lines.append({"image": image, "source": source, "text": text})
        (folder / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    columns = {"image": "image", "source": "source", "text": "text"}
    listed = {"kind": "url_list", "path": str(folder / "list.jsonl"), "pictures": str(folder), "columns": columns}
    rule = {"kind": "embedding_duplicates", "model": str(model), "min_cosine": 0.9999}
    rules: dict[str, Any] = {"filters": {"sets": [rule]}, "edits": {"augment": {"inverse": True}}}
    config = configured(tmp_path / "out", sources=[listed], **rules)
    add(0, 95, "add a red box")
    add(0, 88, "remove the red box")  # as good as the way back of the one above
    add(1, 95, "add a red box")
    first = run_build(config)
    assert (first.increment.num_kept, first.increment.num_augmented) == (3, 1)
    assert first.increment.statistics["augmented, rejected"] == {"embedding_duplicate": 2}
    assert first.increment.embeddings is not None
    table = pq.read_table(tmp_path / "out" / first.increment.embeddings.name)
    assert set(table["key"].to_pylist()) == keys(first)
    assert sorted(table["text"].to_pylist()) == ["add a red box"] * 2 + ["remove the red box"] * 2
    add(1, 88, "remove the red box")  # as good as what was made then
    add(2, 95, "add a red box")
    second = run_build(config)
    assert second.increment.rejected == {"embedding_duplicate": 1}
    assert (second.increment.num_kept, second.increment.num_augmented, second.increment.num_ignored) == (1, 1, 3)
    assert second.increment.embeddings is not None
    assert second.increment.embeddings.rows == 2
    assert verify(str(tmp_path / "out")).ok
