"""Gates refuse what nothing should be built on."""

from __future__ import annotations

import math

import pytest

from dreamline.result import StageResult
from flows.gates import GateRefused, below_floors, check_finite


def result(**metrics: float) -> StageResult:
    return StageResult(stage="t2i", digest="0" * 12, run_dir="/run", metrics=metrics, stop_reason="loss at step 3")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_refused(value: float) -> None:
    check_finite("t2i", result(loss=0.5))
    with pytest.raises(GateRefused, match=r"t2i: loss not finite \(loss at step 3\)"):
        check_finite("t2i", result(loss=value, other=1.0))


def test_a_champion_reaches_every_floor() -> None:
    floors = {"scenes/generation": 0.6, "scenes/editing": 0.4}
    assert below_floors({"scenes/generation": 0.6, "scenes/editing": 0.9}, floors) == []
    assert below_floors({"scenes/generation": 0.59, "scenes/editing": 0.9}, floors) == [
        "scenes/generation 0.590 < 0.600"
    ]
    assert below_floors({"scenes/generation": 0.7}, floors) == ["scenes/editing was not measured"]
    assert below_floors({"scenes/generation": math.nan, "scenes/editing": 1.0}, floors) != []
    assert below_floors({}, {}) == []
