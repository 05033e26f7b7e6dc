"""Reward fine-tuning with and without its guards, side by side: what the reward says and what is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.charts import curves

CONTRASTED = ("refl", "unguarded")
KINDS = {"judged": "mean reward", "exact": "share that is exactly right"}


def contrasts(curves_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Charts of what `rl.probe` saw, a pair of them for each task: the reward's opinion and the truth.

    Args:
        curves_of: rows of metrics.jsonl by stage.

    Returns:
        For each task `title`, `names` of the runs and `charts`, (title, svg) pairs; empty where nothing was probed.
    """
    found = []
    for task in ("generation", "editing"):
        charts = []
        for kind, title in KINDS.items():
            key = f"{kind}_{task}"
            lines = {
                name: [(float(row["step"]), float(row[key])) for row in rows if key in row]
                for name, rows in curves_of.items()
            }
            charts.append((title, curves(lines, f"{title}, {task}")))
        if all(svg for _, svg in charts):
            found.append({"title": task.capitalize(), "names": list(curves_of), "charts": charts})
    return found
