"""Filters, edit checks and rules over the set inside a build."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.build.config import BuildConfig, load_build
from data_prep.build.run import Outcome, run_build
from data_prep.build.verify import verify
from dreamline.config import ConfigError
from dreamline.storage import hash_folder

Make = Callable[..., BuildConfig]


def table(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(outcome.location) / name).to_pylist()
    return rows


def manifest(outcome: Outcome) -> list[dict[str, Any]]:
    return [row for entry in outcome.info.manifests for row in table(outcome, entry.name)]


@pytest.fixture
def folder(tmp_path: Path, pictures: Callable[[Path, range], Path], make_jpeg: Any, make_picture: Any) -> Path:
    place = pictures(tmp_path / "pictures", range(6))
    (place / "small.jpg").write_bytes(make_jpeg(make_picture(50, 40, 30)))
    (place / "flat.jpg").write_bytes(make_jpeg(np.full((64, 96, 3), 90, np.uint8)))
    (place / "again.jpg").write_bytes(make_jpeg(make_picture(3), quality=70))
    (place / "mirrored.jpg").write_bytes(make_jpeg(cv2.flip(make_picture(4), 1)))
    return place


FILTERS = {
    "rows": [{"kind": "resolution", "min_side": 50}, {"kind": "flat"}],
    "scorers": [{"kind": "pixels", "measures": ["sharpness", "brightness"]}],
    "thresholds": [{"score": "brightness", "min": 0.01}],
    "sets": [{"kind": "perceptual_duplicates", "max_distance": 6}],
}


def test_filters_reject_with_their_reason_and_the_evidence(folder: Path, tmp_path: Path, configured: Make) -> None:
    outcome = run_build(configured(tmp_path / "out", folder, filters=FILTERS))
    assert outcome.increment.rejected["perceptual_duplicate"] == 2
    assert (outcome.increment.num_kept, outcome.increment.num_rejected) == (6, 4)
    assert outcome.increment.evidence is not None
    evidence = table(outcome, outcome.increment.evidence.name)
    assert len(evidence) == 2
    assert {line["kind"] for line in evidence} == {"phash", "phash_mirrored"}
    assert {line["source_name"] for line in evidence} == {"pictures"}
    kept = {row["key"] for row in manifest(outcome)}
    assert {line["matched"] for line in evidence} < kept
    rejects = table(outcome, outcome.info.rejects.name)
    assert sum(row["thumbnail"] is not None for row in rejects) == 4
    assert {name for name, _ in manifest(outcome)[0]["scores"]} == {"sharpness", "brightness"}


def test_what_is_published_stays_and_its_copies_do_not_come_in(
    folder: Path, tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path]
) -> None:
    sets = {"sets": FILTERS["sets"]}
    plain = pictures(tmp_path / "plain", range(6))
    run_build(configured(tmp_path / "out", plain, filters=sets))
    sources = [
        {"kind": "folder", "path": str(plain), "caption": "filename", "name": "plain"},
        {"kind": "folder", "path": str(folder), "caption": "filename", "name": "more"},
    ]
    again = run_build(configured(tmp_path / "out", sources=sources, filters=sets))
    assert again.increment.num_ignored == 12
    assert again.increment.rejected == {"perceptual_duplicate": 2}
    assert again.increment.num_kept == 2
    assert verify(again.location).ok


def test_a_bucket_per_shard_and_refusals_with_a_reason(
    tmp_path: Path, configured: Make, make_jpeg: Any, make_picture: Any
) -> None:
    place = tmp_path / "shapes"
    place.mkdir()
    for seed, size in enumerate([(200, 130), (130, 200), (160, 160), (200, 131), (60, 60), (900, 90)]):
        (place / f"{size[0]} by {size[1]}.jpg").write_bytes(make_jpeg(make_picture(seed, *size)))
    image = {"buckets": {"pixels": 128 * 128, "multiple": 32}}
    outcome = run_build(configured(tmp_path / "out", place, image=image))
    assert outcome.increment.rejected == {"crop_too_large": 1, "too_small": 1}
    for shard in outcome.info.shards:
        rows = [row for row in manifest(outcome) if row["shard"] == shard.name]
        assert {f"{row['width']}x{row['height']}" for row in rows} == {shard.bucket}
        assert shard.bucket is not None
        assert shard.bucket in shard.name
    assert len(outcome.info.shards) == 3


@pytest.fixture
def edits(tmp_path: Path, make_jpeg: Any, make_picture: Any) -> Path:
    """Edits, of which one changes nothing and one everything."""
    place = tmp_path / "edits"
    place.mkdir()
    lines = []
    for seed in range(5):
        source = make_picture(seed, 256, 256)
        target = source.copy()
        target[60:120, 70:140] = (20, 20, 220)
        if seed == 3:
            target = source
        if seed == 4:
            target = make_picture(99, 256, 256)
        for name, pixels in (("source", source), ("target", target)):
            (place / f"{seed}.{name}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        lines.append({"target": f"{seed}.target.png", "source": f"{seed}.source.png", "text": f"add a red box {seed}"})
    (place / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def edit_source(place: Path) -> list[dict[str, Any]]:
    columns = {"image": "target", "source": "source", "text": "text"}
    return [{"kind": "url_list", "path": str(place / "metadata.jsonl"), "columns": columns, "pictures": str(place)}]


def test_edits_share_geometry_and_bad_ones_become_negatives(edits: Path, tmp_path: Path, configured: Make) -> None:
    checks = {"change": {}, "foreground": {}}
    config = configured(
        tmp_path / "out", sources=edit_source(edits), edits={"checks": checks}, image={"shorter_side": 128}
    )
    outcome = run_build(config)
    assert outcome.increment.num_inputs == 5
    assert outcome.increment.num_kept == 3
    assert outcome.increment.rejected["identical"] == 1
    rows = manifest(outcome)
    assert {row["kind"] for row in rows} == {"edit"}
    assert {item["name"] for item in rows[0]["members"]} == {
        *("instruction.txt", "json", "mask.png", "source.jpg", "target.jpg")
    }
    (shard,) = outcome.increment.negatives
    assert shard.name.startswith("negatives/")
    assert shard.samples == 1
    assert outcome.increment.negatives_manifest is not None
    (negative,) = table(outcome, outcome.increment.negatives_manifest.name)
    assert negative["split"] == "negative"
    assert negative["reason"] in outcome.increment.rejected
    assert outcome.info.num_samples == 3
    assert verify(outcome.location).ok


def test_the_balance_of_types_becomes_a_weight(edits: Path, tmp_path: Path, configured: Make) -> None:
    together = {"balance": {"add": 0.5}, "max_per_source": 1}
    outcome = run_build(configured(tmp_path / "out", sources=edit_source(edits), edits={"together": together}))
    assert all(row["weight"] is not None for row in manifest(outcome))


def test_paths_are_relative_to_the_file_and_mistakes_are_named(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("sources: [{kind: folder, path: ./a, caption: filename}]\noutput: s3://b/x\n")
    loaded = load_build(config, ["output=out", "shards.max_samples=7"])
    assert loaded.sources[0].path == str(tmp_path / "a")
    assert loaded.output == str(tmp_path / "out")
    assert loaded.shards.max_samples == 7
    config.write_text("sources: [{kind: folder, path: ./a}]\noutput: o\nimage: {shorter_side: 64, longer_side: 64}\n")
    with pytest.raises(ConfigError, match="shorter_side and longer_side are set"):
        load_build(config)
    config.write_text("sources: [{kind: folder, path: a, name: x}, {kind: folder, path: b, name: x}]\noutput: o\n")
    with pytest.raises(ConfigError, match="two have the same name"):
        load_build(config)


def test_folders_of_models_and_keys_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "nsfw").mkdir(parents=True)
    (tmp_path / "tiny-vl").mkdir()
    endpoint = "{base_url: 'http://127.0.0.1:1/v1', model: tiny-vl, api_key_file: secret/key}"
    rule = "kind: classifier, labels: [nsfw]"
    (tmp_path / "mine.yaml").write_text(
        "sources: [{kind: folder, path: a, caption: filename}]\noutput: o\n"
        f"captions: {{endpoint: {endpoint}, prompt_file: prompt.txt}}\n"
        f"filters: {{scorers: [{{{rule}, name: a, model: models/nsfw}}, {{{rule}, name: b, model: some/repository}},"
        f" {{{rule}, name: c, model: ./absent}}, {{kind: rubric, endpoint: {endpoint}}}]}}\n"
    )
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "some" / "repository").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    loaded = load_build(tmp_path / "mine.yaml").content()
    assert loaded["captions"]["prompt_file"] == str(tmp_path / "prompt.txt")
    *weights, rubric = loaded["filters"]["scorers"]
    models = [str(tmp_path / "models" / "nsfw"), "some/repository", str(tmp_path / "absent")]
    assert [rule["model"] for rule in weights] == models
    for asked in (loaded["captions"]["endpoint"], rubric["endpoint"]):
        assert (asked["model"], asked["api_key_file"]) == ("tiny-vl", str(tmp_path / "secret" / "key"))


@pytest.mark.slow
def test_workers_do_not_matter(tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path]) -> None:
    sources = [
        {"kind": "folder", "path": str(pictures(tmp_path / f"{n}", range(n * 9, n * 9 + 9))), "caption": "filename"}
        for n in range(5)
    ]
    hashes = []
    for workers in (1, 2):
        place = tmp_path / f"out {workers}"
        run_build(configured(place, sources=sources, workers=workers, shards={"max_samples": 10}))
        hashes.append(hash_folder(place))
    assert hashes[0] == hashes[1]
