"""Files that rules name are part of what is asked for: a change is seen, said, and never mixed in."""

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
from data_prep.build.store import STAGING
from dreamline import storage
from dreamline.config import ConfigError

Make = Callable[..., BuildConfig]


def texts(outcome: Outcome) -> set[str]:
    tables = [pq.read_table(Path(outcome.location) / entry.name, columns=["text"]) for entry in outcome.info.manifests]
    return {text for table in tables for text in table.column("text").to_pylist()}


@pytest.fixture
def folder(tmp_path: Path, pictures: Callable[[Path, range], Path]) -> Path:
    return pictures(tmp_path / "pictures", range(6))


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_changed_word_list_is_applied_to_what_is_new(
    place: str, folder: Path, tmp_path: Path, configured: Make, request: pytest.FixtureRequest
) -> None:
    root = str(tmp_path) if place == "folder" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    words = f"{root}/words.txt"
    storage.put(words, b"picture 003\n")
    config = configured(tmp_path / "out", folder, filters={"rows": [{"kind": "caption", "banned_file": words}]})
    first = run_build(config)
    assert first.increment.rejected == {"caption_banned": 1}
    assert len(run_build(config).info.increments) == 1
    storage.put(words, b"picture 004\n")
    said: list[Step] = []
    second = run_build(config, said.append)
    assert any("words.txt has changed" in step.text for step in said)
    assert (second.increment.num_kept, second.increment.num_ignored, second.increment.num_rejected) == (1, 5, 0)
    assert texts(second) == {f"picture {seed:03d}" for seed in range(6)}  # 004 was there before it was banned
    digests = [increment.files_named[words] for increment in second.info.increments]
    assert len(set(digests)) == 2
    assert len(run_build(config).info.increments) == 2


def test_evaluation_sets_on_s3(folder: Path, tmp_path: Path, configured: Make, s3: str) -> None:
    root = f"{s3}/{tmp_path.name}"
    storage.put(f"{root}/bench/a/one.jpg", (folder / "picture 001.jpg").read_bytes())
    storage.put(f"{root}/bench/notes.txt", b"no picture")
    storage.put(f"{root}/prompts.jsonl", json.dumps({"id": "p", "prompt": "Picture 002!"}).encode())
    outcome = run_build(configured(tmp_path / "plain", folder))
    held = pq.read_table(tmp_path / "plain" / outcome.info.manifests[0].name).to_pylist()
    digest = next(row["sha256"] for row in held if row["text"] == "picture 005")
    storage.put(f"{root}/hashes.csv", f"id,sha256\nh,{digest}\n".encode())
    against = {
        "name": "bench",
        "images": f"{root}/bench",
        "prompts": f"{root}/prompts.jsonl",
        "hashes": f"{root}/hashes.csv",
    }
    config = configured(tmp_path / "out", folder, filters={"sets": [{"kind": "decontamination", "against": [against]}]})
    outcome = run_build(config)
    assert outcome.increment.rejected == {"contaminated": 3}
    assert texts(outcome) == {f"picture {seed:03d}" for seed in (0, 3, 4)}
    assert outcome.increment.evidence is not None
    lines = pq.read_table(tmp_path / "out" / outcome.increment.evidence.name).to_pylist()
    assert {line["matched"] for line in lines} == {"bench:a/one.jpg", "bench:p", "bench:h"}
    storage.put(f"{root}/bench/b.jpg", (folder / "picture 000.jpg").read_bytes())
    second = run_build(config)
    assert second.increment.files_named[f"{root}/bench"] != outcome.increment.files_named[f"{root}/bench"]
    assert second.increment.num_ignored == 3
    storage.delete(f"{root}/prompts.jsonl")
    with pytest.raises(ConfigError, match=r"prompts: s3://.*prompts\.jsonl: nothing is there"):
        run_build(config)


def save_classifier(folder: Path, seed: int) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=16, patch_size=8,
        id2label={0: "normal", 1: "nsfw"}, label2id={"normal": 0, "nsfw": 1},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)


def test_scores_of_two_models_are_not_mixed(
    folder: Path, tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path]
) -> None:
    def build(**changes: Any) -> Outcome:
        rule = {"kind": "classifier", "name": "nsfw", "labels": ["nsfw"], "model": str(model), **changes}
        return run_build(configured(tmp_path / "out", folder, filters={"scorers": [rule]}))

    model = tmp_path / "model"
    save_classifier(model, 0)
    first = build()
    assert set(first.increment.models) == {"nsfw"}
    (model / "README.md").write_text("not read with the model")
    assert build().increment == first.increment
    save_classifier(model, 1)
    pictures(folder, range(6, 8))
    with pytest.raises(ConfigError, match=r"the model of 'nsfw' is not the one .*another name"):
        build()
    second = build(name="other")
    assert (second.increment.num_kept, second.increment.num_ignored) == (2, 6)
    save_classifier(model, 0)
    with pytest.raises(ConfigError, match="the model of 'other'"):
        build(name="other")
    assert build().increment.num_ignored == 8


def test_another_prompt_for_captions_is_another_build(
    tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path], vlm: Any
) -> None:
    prompt = tmp_path / "prompt.txt"
    vlm.answers = lambda means, text: (f"{text} {means[0]:.3f}", "stop")
    folder = pictures(tmp_path / "pictures", range(3))
    captions = {"endpoint": vlm.endpoint(), "when": "always", "prompt_file": str(prompt)}
    config = configured(tmp_path / "out", folder, captions=captions)
    prompt.write_text("one")
    assert set(run_build(config).increment.files_named) == {str(prompt)}
    assert run_build(config).info.num_samples == len(vlm.asked) == 3
    prompt.write_text("two")
    pictures(folder, range(5))
    said: list[Step] = []
    second = run_build(config, said.append)
    assert any("prompt.txt has changed" in step.text for step in said)
    assert (second.increment.num_kept, second.increment.num_ignored, len(vlm.asked)) == (2, 3, 5)
    assert sorted(text.split()[0] for text in texts(second)) == ["one"] * 3 + ["two"] * 2
    assert [list(increment.prompts.values()) for increment in second.info.increments] == [["one"], ["two"]]


def test_a_file_that_changes_during_a_build_stops_it(folder: Path, tmp_path: Path, configured: Make) -> None:
    words = tmp_path / "words.txt"
    words.write_text("picture 003\n")
    config = configured(tmp_path / "out", folder, filters={"rows": [{"kind": "caption", "banned_file": str(words)}]})
    with pytest.raises(ConfigError, match="has changed during the build"):
        run_build(config, lambda step: None if "tables" not in step.text else print(words.write_text("picture 004\n")))
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert not list((tmp_path / "out" / STAGING).rglob("*.parquet"))
    assert texts(run_build(config)) == {f"picture {seed:03d}" for seed in (0, 1, 2, 3, 5)}
