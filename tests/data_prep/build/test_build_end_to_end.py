"""From a folder of pictures to a data set that other tools read; again, with more, damaged, and after a crash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from data_prep.build.config import BuildConfig
from data_prep.build.published import read_dataset
from data_prep.build.report import write_report
from data_prep.build.run import Outcome, run_build
from data_prep.build.store import STAGING, open_store
from data_prep.build.verify import collect_garbage, verify
from dreamline.config import ConfigError
from dreamline.data.manifest import fingerprint
from dreamline.data.sample import Sample, decode_png
from dreamline.storage import hash_folder

ROOT = Path(__file__).parents[3]
Make = Callable[..., BuildConfig]


def rows_of(outcome: Outcome) -> list[dict[str, Any]]:
    folder = Path(outcome.location)
    rows: list[dict[str, Any]] = []
    for entry in outcome.info.manifests:
        rows += pq.read_table(folder / entry.name).to_pylist()
    return rows


def rejects_of(outcome: Outcome) -> dict[str, str]:
    table = pq.read_table(Path(outcome.location) / outcome.info.rejects.name, columns=["row", "reason"])
    return {row["row"].rpartition("/")[2]: row["reason"] for row in table.to_pylist()}


@pytest.fixture
def folder(tmp_path: Path, pictures: Callable[[Path, range], Path]) -> Path:
    place = pictures(tmp_path / "pictures", range(12))
    (place / "broken.jpg").write_bytes((place / "picture 001.jpg").read_bytes()[:300])
    (place / "page.jpg").write_bytes(b"<html>not found</html>")
    shutil.copy(place / "picture 002.jpg", place / "same.jpg")
    return place


def test_every_input_is_kept_rejected_or_ignored(folder: Path, tmp_path: Path, configured: Make) -> None:
    outcome = run_build(configured(tmp_path / "out", folder))
    summary = outcome.summary()
    assert summary["num_inputs"] == 15
    assert summary["num_kept"] == 12
    assert summary["num_ignored"] == 0
    assert sum(summary["rejected_by_reason"].values()) == summary["num_rejected"] == 3
    assert summary["rejected_by_reason"]["duplicate_key"] == 1
    rows = rows_of(outcome)
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert {row["text"] for row in rows} == {f"picture {seed:03d}" for seed in range(12)}
    assert set(rejects_of(outcome)) >= {"broken.jpg", "page.jpg", "same.jpg"}
    assert fingerprint((row["key"], *(item["sha256"] for item in row["members"])) for row in rows) == (
        outcome.info.fingerprint
    )
    assert not (tmp_path / "out" / STAGING).exists()


def test_pictures_that_fit_are_stored_as_they_came(folder: Path, tmp_path: Path, configured: Make) -> None:
    outcome = run_build(configured(tmp_path / "out", folder))
    row = next(row for row in rows_of(outcome) if row["text"] == "picture 005")
    members = {item["name"]: item for item in row["members"]}
    shard = (tmp_path / "out" / row["shard"]).read_bytes()
    stored = shard[members["jpg"]["offset"] :][: members["jpg"]["size"]]
    assert stored == (folder / "picture 005.jpg").read_bytes()
    assert not row["reencoded"]
    small = run_build(configured(tmp_path / "small", folder, image={"shorter_side": 32}))
    row = rows_of(small)[0]
    assert (row["width"], row["height"], row["original_width"], row["original_height"]) == (48, 32, 96, 64)
    assert row["reencoded"]


def test_the_webdataset_library_reads_it(folder: Path, tmp_path: Path, configured: Make) -> None:
    outcome = run_build(configured(tmp_path / "out", folder, shards={"max_samples": 5}))
    shards = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    assert len(shards) == 3
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    read = [Sample.from_members(item["__key__"], {k: v for k, v in item.items() if k[0] != "_"}) for item in samples]
    assert {sample.text for sample in read} == {f"picture {seed:03d}" for seed in range(12)}
    assert {sample.key for sample in read} == {row["key"] for row in rows_of(outcome)}
    assert decode_png(read[0].image).shape == (64, 96, 3)
    assert read[0].facts["source"] == "pictures"


def test_a_finished_build_is_not_repeated_and_a_grown_source_adds_shards(
    folder: Path, tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path]
) -> None:
    config = configured(tmp_path / "out", folder)
    first = run_build(config)
    before = hash_folder(tmp_path / "out")
    assert run_build(config).summary() == first.summary()
    assert hash_folder(tmp_path / "out") == before
    pictures(folder, range(12, 16))
    second = run_build(config).summary()
    assert (second["num_inputs"], second["num_kept"], second["num_ignored"]) == (
        19,
        4,
        13,
    )  # the second copy is in it, too
    assert second["num_samples"] == 16
    after = hash_folder(tmp_path / "out")
    assert {name for name in before if name.endswith(".tar")} < set(after)
    assert all(after[name] == digest for name, digest in before.items() if name.endswith(".tar"))
    assert verify(str(tmp_path / "out")).ok
    whole = run_build(configured(tmp_path / "whole", folder))
    assert whole.info.fingerprint == second["fingerprint"]  # in how many builds it came does not matter
    assert collect_garbage(str(tmp_path / "out")) == []


def test_damage_is_found_and_orphans_are_removed(folder: Path, tmp_path: Path, configured: Make) -> None:
    outcome = run_build(configured(tmp_path / "out", folder))
    place = tmp_path / "out"
    found = verify(str(place))
    assert found.ok
    assert found.num_samples == 12
    (place / STAGING / "old").mkdir(parents=True)
    (place / STAGING / "old" / "x.bin").write_bytes(b"1")
    (place / "mine-t2i-000009-0123456789ab.tar").write_bytes(b"1")
    (place / "notes.txt").write_text("mine")
    orphans = collect_garbage(str(place), dry_run=True)
    assert collect_garbage(str(place)) == orphans == [f"{STAGING}/old/x.bin", "mine-t2i-000009-0123456789ab.tar"]
    assert (place / "notes.txt").is_file()
    shard = place / outcome.info.shards[0].name
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    problems = verify(str(place)).problems
    assert any("damaged" in problem and shard.name in problem for problem in problems)
    shard.unlink()
    assert verify(str(place)).problems == [f"{shard.name}: missing"]
    (place / "dataset.json").write_text("{}")
    with pytest.raises(ConfigError, match="schema None"):
        verify(str(place))


def test_the_report_holds_the_numbers_and_the_pictures(folder: Path, tmp_path: Path, configured: Make) -> None:
    config = configured(tmp_path / "out", folder)
    outcome = run_build(config)
    numbers = write_report(outcome.location, tmp_path / "elsewhere.html")
    assert (tmp_path / "out" / "report.html").read_text() == (tmp_path / "elsewhere.html").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert json.loads((tmp_path / "out" / "report.json").read_text())["num_samples"] == numbers["num_samples"] == 12
    assert page.count("data:image/jpeg;base64,") == 13  # twelve kept ones and the duplicate
    assert "http" not in page.replace("http-equiv", "")
    assert "duplicate_key" in page
    assert "picture 003" in page
    (tmp_path / "out" / "report.html").unlink()
    (tmp_path / "out" / ".report.html.tmp-123").write_text("of a killed command")
    run_build(config)  # killed before the report was there, a build has nothing left to do but that
    assert (tmp_path / "out" / "report.html").read_text() == page
    assert verify(outcome.location).ok
    assert collect_garbage(outcome.location) == [".report.html.tmp-123"]
    assert (tmp_path / "out" / "report.json").is_file()
    assert not (tmp_path / "out" / STAGING).exists()


def test_the_report_follows_the_version(
    folder: Path, tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path]
) -> None:
    config = configured(tmp_path / "out", folder)
    run_build(config)
    pictures(folder, range(12, 14))
    second = run_build(config)
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (numbers["fingerprint"], len(numbers["builds"])) == (second.info.fingerprint, 2)
    assert "picture 013" in (tmp_path / "out" / "report.html").read_text()
    run_build(configured(tmp_path / "without", folder, report=False))
    assert not list((tmp_path / "without").glob("report.*"))


def test_the_command_line_ends_with_one_object(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("sources:\n  - {kind: folder, path: ./pictures, caption: filename}\noutput: ./out\nworkers: 1\n")

    def dreamline(*words: str) -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "flows.cli", "data", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200, check=False)
        return done.returncode, json.loads(done.stdout)

    code, summary = dreamline("build", str(config))
    assert code == 0
    assert summary["num_inputs"] == summary["num_kept"] + summary["num_rejected"] + summary["num_ignored"] == 15
    assert summary["dataset"] == str(tmp_path / "out")
    assert dreamline("verify", str(config))[1]["fingerprint"] == summary["fingerprint"]
    config.write_text("sources: [{kind: folder, path: ./nowhere}]\noutput: ./out2\nimage: {longest: 3}\n")
    code, failure = dreamline("build", str(config))
    assert code == 2
    assert "image.longest" in failure["error"]


def test_another_name_in_the_same_place_is_refused(folder: Path, tmp_path: Path, configured: Make) -> None:
    run_build(configured(tmp_path / "out", folder))
    with pytest.raises(ConfigError, match="holds data set 'mine'"):
        run_build(configured(tmp_path / "out", folder, name="other"))
    assert read_dataset(open_store(str(tmp_path / "empty"))) is None
