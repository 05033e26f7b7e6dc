"""Builds that ask a vision-language model: what it says, what it does not say, and what happens when it is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_prep.build.config import BuildConfig
from data_prep.build.report import write_report
from data_prep.build.run import Outcome, run_build, run_retry
from data_prep.build.store import STAGING
from data_prep.build.verify import verify
from data_prep.filters.captioner import PROMPT
from data_prep.filters.rubric import CRITERIA
from dreamline.config import ConfigError

Make = Callable[..., BuildConfig]
Fill = Callable[[Path, range], Path]

RUBRIC = json.dumps(dict.fromkeys(CRITERIA, 9))


def test_scores_that_could_not_be_had_are_reported(tmp_path: Path, configured: Make, pictures: Fill, vlm: Any) -> None:
    vlm.answers = lambda means, text: (
        ("no idea", "stop") if "003" in text else ("", "stop") if "005" in text else (RUBRIC, "stop")
    )
    scorers = [{"kind": "rubric", "name": "vlm", "endpoint": vlm.endpoint()}]
    folder = pictures(tmp_path / "in", range(8))
    config = configured(
        tmp_path / "out", folder, filters={"scorers": scorers, "thresholds": [{"score": "vlm", "min": 5}]}
    )
    outcome = run_build(config)
    missing = {"vlm: endpoint_status": 1, "vlm: unparsable": 1}
    assert outcome.summary()["missing_scores"] == missing
    assert outcome.increment.rejected == {"score_missing": 2}
    assert write_report(outcome.location)["builds"][0]["missing_scores"] == missing
    assert "vlm: unparsable" in (tmp_path / "out" / "report.html").read_text()


def manifest(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Rows by the last part of their name."""
    rows = [row for e in outcome.info.manifests for row in pq.read_table(Path(outcome.location) / e.name).to_pylist()]
    return {row["row"].rpartition("/")[2]: row for row in rows}


def failures(outcome: Outcome) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(Path(outcome.location) / outcome.info.failures.name).to_pylist()
    return rows


def seen(means: list[float], text: str) -> tuple[str, str]:
    return f"a picture of brightness {means[0]:.0f}", "stop"


@pytest.fixture
def folder(tmp_path: Path, pictures: Fill) -> Path:
    """Six pictures, the first three with a caption."""
    place = pictures(tmp_path / "in", range(6))
    for seed in range(3):
        (place / f"picture {seed:03d}.txt").write_text(f"said of {seed}")
    return place


def sidecar(folder: Path, **values: Any) -> list[dict[str, Any]]:
    return [{"kind": "folder", "path": str(folder), "caption": "sidecar", "name": "pictures", **values}]


def test_pictures_without_a_caption_get_one(tmp_path: Path, folder: Path, configured: Make, vlm: Any) -> None:
    vlm.answers = seen
    filters = {"rows": [{"kind": "caption", "min_words": 2, "banned": ["brightness 9"]}]}
    captions = {"endpoint": vlm.endpoint()}
    config = configured(tmp_path / "out", sources=sidecar(folder), captions=captions, filters=filters)
    outcome = run_build(config)
    rows = manifest(outcome)
    assert outcome.increment.num_kept == 6
    assert len(vlm.asked) == 3
    assert rows["picture 000.jpg"]["text"] == "said of 0"
    assert rows["picture 000.jpg"]["caption_model"] is None
    written = rows["picture 004.jpg"]
    assert written["text"].startswith("a picture of brightness")
    assert (written["original_text"], written["caption_model"]) == (None, "tiny-vl@1")
    assert outcome.increment.prompts == {written["caption_prompt_sha256"]: PROMPT}
    assert json.loads(written["facts"])["caption_model"] == "tiny-vl@1"
    always = configured(tmp_path / "all", sources=sidecar(folder), captions={**captions, "when": "always"})
    rows = manifest(run_build(always))
    assert rows["picture 000.jpg"]["original_text"] == "said of 0"
    assert all(row["caption_model"] == "tiny-vl@1" for row in rows.values())
    assert verify(str(tmp_path / "all")).ok


def test_captions_are_judged_as_they_are_stored_and_cheap_filters_come_first(
    tmp_path: Path, folder: Path, configured: Make, vlm: Any, make_jpeg: Any, make_picture: Any
) -> None:
    (folder / "small.jpg").write_bytes(make_jpeg(make_picture(77, 20, 20)))
    vlm.answers = lambda means, text: ("one", "stop")
    rows = [{"kind": "caption", "min_words": 2}, {"kind": "resolution", "min_side": 32}]
    config = configured(
        tmp_path / "out", sources=sidecar(folder), captions={"endpoint": vlm.endpoint()}, filters={"rows": rows}
    )
    outcome = run_build(config)
    assert outcome.increment.rejected == {"caption_short": 3, "too_small": 1}
    assert len(vlm.asked) == 3


def test_only_the_named_sources_are_captioned(
    tmp_path: Path, folder: Path, configured: Make, vlm: Any, pictures: Fill
) -> None:
    vlm.answers = seen
    bare = {
        "kind": "folder",
        "path": str(pictures(tmp_path / "bare", range(20, 22))),
        "caption": "none",
        "name": "bare",
    }
    captions = {"endpoint": vlm.endpoint(), "sources": ["bare"]}
    run_build(configured(tmp_path / "out", sources=[*sidecar(folder), bare], captions=captions))
    assert len(vlm.asked) == 2
    with pytest.raises(ConfigError, match="no source is named 'bear'"):
        configured(tmp_path / "out", sources=[bare], captions={**captions, "sources": ["bear"]})


def test_a_refused_caption_is_a_reason_and_can_be_tried_again(
    tmp_path: Path, folder: Path, configured: Make, vlm: Any
) -> None:
    """Rows that came with bytes are read again out of their part of the source."""
    vlm.answers = lambda means, text: ("cut", "length") if len(vlm.asked) == 1 else ("", "stop")
    config = configured(tmp_path / "out", sources=sidecar(folder), captions={"endpoint": vlm.endpoint()})
    outcome = run_build(config)
    assert outcome.increment.rejected == {"captioner_cut_off": 1, "captioner_status": 2}
    assert {(row["transient"], row["http_status"]) for row in failures(outcome)} == {(False, None), (False, 400)}
    vlm.answers = seen
    assert run_retry(config, "transient").increment.num_inputs == 0
    again = run_retry(config, "permanent")
    assert (again.increment.num_inputs, again.increment.num_kept) == (3, 3)
    assert again.info.num_samples == 6
    assert failures(again) == []
    assert again.info.rejects.rows == 0
    whole = run_build(configured(tmp_path / "whole", sources=sidecar(folder), captions={"endpoint": vlm.endpoint()}))
    assert whole.info.fingerprint == again.info.fingerprint


def test_a_server_that_is_not_there_stops_a_build_before_it_starts(
    tmp_path: Path, folder: Path, configured: Make, serve_vlm: Any
) -> None:
    server = serve_vlm()
    endpoint = server.endpoint()
    server.served = ["another"]
    for values in (
        {"captions": {"endpoint": endpoint}},
        {"filters": {"scorers": [{"kind": "rubric", "endpoint": endpoint}]}},
    ):
        config = configured(tmp_path / "out", sources=sidecar(folder), **values)
        with pytest.raises(ConfigError, match="has no model 'tiny-vl', but another"):
            run_build(config)
    server.stop()
    with pytest.raises(ConfigError, match=r"no answer .* start the server"):
        run_build(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_server_that_goes_away_costs_nothing_that_was_committed(
    tmp_path: Path, configured: Make, pictures: Fill, serve_vlm: Any, workers: int
) -> None:
    """The build stops, and goes on with the server at another address; no committed picture is asked about twice."""
    sources = [
        {
            "kind": "folder",
            "path": str(pictures(tmp_path / f"part-{part}", range(9 * part, 9 * part + 9))),
            "caption": "none",
            "name": f"part-{part}",
        }
        for part in range(4)
    ]
    settings: dict[str, Any] = {"sources": sources, "shards": {"max_samples": 10}}
    first = serve_vlm()
    first.answers = seen
    whole = run_build(configured(tmp_path / "whole", captions={"endpoint": first.endpoint()}, **settings))
    assert whole.increment.num_kept == len(first.asked) == 36
    leaving = serve_vlm()

    def leave(means: list[float], text: str) -> tuple[str, str]:
        if len(leaving.asked) > 21:
            leaving.stop()
            raise ConnectionAbortedError
        return seen(means, text)

    leaving.answers = leave
    settings["workers"] = workers
    with pytest.raises(ConfigError, match="no answer") as error:
        run_build(configured(tmp_path / "out", captions={"endpoint": leaving.endpoint(retries=1)}, **settings))
    assert str(error.value).startswith("http://127.0.0.1")  # and not with the traceback of a worker
    committed = len(list((tmp_path / "out" / STAGING).rglob("index/*.parquet")))
    assert committed == 2 or (workers > 1 and committed < 2)
    last = serve_vlm()
    last.answers = seen
    resumed = run_build(configured(tmp_path / "out", captions={"endpoint": last.endpoint()}, **settings))
    assert len(last.asked) == 36 - 9 * committed
    assert resumed.info.fingerprint == whole.info.fingerprint
    assert [shard.name for shard in resumed.info.shards] == [shard.name for shard in whole.info.shards]
    assert verify(resumed.location).ok
