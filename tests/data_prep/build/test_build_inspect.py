"""What `dreamline data inspect` shows of a build, on disk and on S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.build.config import BuildConfig
from data_prep.build.run import run_build
from data_prep.inspect.run import inspect, inspect_sample
from dreamline.data.index import open_index
from dreamline.data.manifest import sum_counts

Make = Callable[..., BuildConfig]


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_a_build(
    place: str,
    s3: str,
    tmp_path: Path,
    pictures: Callable[[Path, range], Path],
    configured: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = pictures(tmp_path / "pictures", range(12))
    (folder / "page.jpg").write_bytes(b"<html>not found</html>")
    output = f"{s3}/inspected" if place == "s3" else str(tmp_path / "out")
    first = run_build(configured(output, folder))
    pictures(folder, range(12, 15))
    outcome = run_build(configured(output, folder))
    found, text = inspect(output, tmp_path / "page.html", num=20)
    assert (found["type"], found["num_samples"], found["fingerprint"]) == ("build", 15, outcome.info.fingerprint)
    assert found["rejected"] == sum_counts(item.rejected for item in outcome.info.increments)
    assert found["num_rejected"] >= 1
    assert found["facts"]["num_builds"] == 2
    assert found["num_bytes"] == sum(shard.size for shard in outcome.info.shards)
    assert found["counts"]["source"]["pictures"]["samples"] == 15
    assert found["counts"]["kind"]["t2i"]["samples"] == 15
    assert "picture 003" in (tmp_path / "page.html").read_text()
    assert "15 samples" in text
    key = open_index(output).key(14)
    sample, _ = inspect_sample(output, key, tmp_path / "written")
    assert sample["columns"]["source"] == "pictures"
    assert len(sample["written"]) == 1
    assert first.info.fingerprint != outcome.info.fingerprint


def test_a_build_without_samples(tmp_path: Path, configured: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "page.jpg").write_bytes(b"<html>not found</html>")
    outcome = run_build(configured(tmp_path / "out", tmp_path / "in"))
    found, text = inspect(outcome.location, tmp_path / "page.html")
    assert (found["num_samples"], found["rejected"], found["histograms"]) == (0, {"format": 1}, {})
    assert "0 samples in 0 shards" in text
