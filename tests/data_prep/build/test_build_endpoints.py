"""Builds that ask a vision-language model: what it says, what it does not say, and what happens when it is away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.build.config import BuildConfig
from data_prep.build.report import write_report
from data_prep.build.run import run_build
from data_prep.filters.rubric import CRITERIA

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
