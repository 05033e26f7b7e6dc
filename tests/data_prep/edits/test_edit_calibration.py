"""The calibration runs, gives rates, and depends on its seed alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.edits import calibration
from data_prep.edits.calibration_pairs import photo_pair
from data_prep.edits.corruptions import CORRUPTIONS


def test_pairs_depend_on_the_seed_alone() -> None:
    one, two = (photo_pair(np.random.default_rng(3), "replace", 128) for _ in range(2))
    np.testing.assert_array_equal(one.target, two.target)
    outside = (one.source.astype(int) - one.target)[~one.mask]
    assert np.abs(outside).max() < 40
    assert np.abs(outside).mean() < 3


def test_rates_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: CORRUPTIONS[name] for name in ("no-op", "zoom 1.05", "refusal")}
    monkeypatch.setattr(calibration, "CORRUPTIONS", few)
    monkeypatch.setattr(calibration, "QUICK", calibration.Size(2, 1, 1))
    path = tmp_path / "rates.json"
    calibration.main(["--json", str(path), "--quick"])
    result = json.loads(path.read_text())
    assert result["num_clean"] == {"photo": 2, "scene": 1}
    assert {name: row["own"] for name, row in result["recall"].items()} == dict.fromkeys(few, 1.0)
    assert set(result["false_rejects"]["photo"]) == {*calibration.CHECKS, "any"}
    text = calibration.table(result)
    assert "| zoom 1.05 | `zoomed` | 100% | 100% |" in text
