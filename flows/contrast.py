"""Reward fine-tuning with and without its guards, side by side: what the reward says and what is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.charts import curves

FOLLOWED = {"refl": "reward", "unguarded": "hasty"}  # run: the stage that trained the reward it follows
KINDS = {"judged": "reward: 0 as for wrong pictures, 1 as for right ones", "exact": "share that is exactly right"}


def contrasts(
    curves_of: Mapping[str, Sequence[Mapping[str, Any]]], metrics_of: Mapping[str, Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Charts of what `rl.probe` saw, a pair of them for each task: the reward's opinion and the truth.

    Args:
        curves_of: rows of metrics.jsonl by stage.
        metrics_of: final metrics by stage; those of a reward model hold its mean for right and for wrong pictures.

    Returns:
        For each task `title`, `names` of the runs and `charts`, (title, svg) pairs; empty where nothing was probed.
    """
    runs = [name for name in FOLLOWED if name in curves_of]
    found = []
    for task in ("generation", "editing"):
        charts = []
        for kind, title in KINDS.items():
            lines = {}
            for name in runs:
                low, high = _scale(metrics_of.get(FOLLOWED[name], {}), task) if kind == "judged" else (0.0, 1.0)
                points = [(row["step"], row[f"{kind}_{task}"]) for row in curves_of[name] if f"{kind}_{task}" in row]
                lines[name] = [(float(step), (float(value) - low) / (high - low)) for step, value in points]
            charts.append((title, curves(lines, f"{title}, {task}")))
        if all(svg for _, svg in charts):
            found.append({"title": task.capitalize(), "names": runs, "charts": charts})
    return found


def _scale(metrics: Mapping[str, float], task: str) -> tuple[float, float]:
    """Mean rewards of wrong and of right held-out pictures; 0 and 1, which change nothing, where they are not known."""
    low, high = (metrics.get(f"reward/{task}_{kind}") for kind in ("wrong", "right"))
    return (0.0, 1.0) if low is None or high is None or low == high else (low, high)
