"""Good enough to go on? Pure functions of results and configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dreamline.result import StageResult


class GateRefused(RuntimeError):
    """A result that nothing should be built on."""


def check_finite(name: str, result: StageResult) -> None:
    """Every metric of a stage must be a finite number.

    Raises:
        GateRefused: names the stage and the metrics.
    """
    wrong = [key for key, value in result.metrics.items() if not math.isfinite(value)]
    if wrong:
        reason = f" ({result.stop_reason})" if result.stop_reason else ""
        raise GateRefused(
            f"{name}: {', '.join(wrong)} not finite{reason}. Change its settings, for instance a lower "
            f"`--set {name}.stage.optim.lr=...`; the run is kept in {result.run_dir}"
        )


def below_floors(metrics: Mapping[str, float], floors: Mapping[str, float]) -> list[str]:
    """Which floors a student misses, in words; empty when it may become champion."""
    return [
        f"{name} {metrics[name]:.3f} < {floor:.3f}" if name in metrics else f"{name} was not measured"
        for name, floor in floors.items()
        if not metrics.get(name, -math.inf) >= floor
    ]
