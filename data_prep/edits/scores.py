"""Limits on scores that models gave: figures that came with a row, or columns of a scorer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from data_prep.edits.config import Scores
from data_prep.edits.verdict import Problem


def geometric_mean(scores: Mapping[str, float], names: Sequence[str]) -> float:
    """Of the named scores, which must be >= 0; 0 if one is 0.

    Raises:
        KeyError: a score is missing.
    """
    values = np.array([scores[name] for name in names], float)
    return float(np.exp(np.log(values).mean())) if (values > 0).all() else 0.0


def score_problems(scores: Mapping[str, float], config: Scores) -> Iterator[Problem]:
    """Reason and detail: `score_missing`, `score_<name>` or `score_rubric`."""
    missing = sorted({*config.min, *config.rubric} - set(scores))
    if missing:
        yield "score_missing", f"no score {', '.join(missing)} (there are: {', '.join(sorted(scores)) or 'none'})"
        return
    for name, least in config.min.items():
        if not scores[name] >= least:  # also for NaN
            yield f"score_{name}", f"{name} is {scores[name]:g}, the least is {least:g}"
    if config.rubric and not (mean := geometric_mean(scores, config.rubric)) >= config.min_rubric:
        yield "score_rubric", f"the geometric mean of the rubric is {mean:.3g}, the least is {config.min_rubric:g}"
