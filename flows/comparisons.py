"""What each step changed: differences of exact scores over the same items at the same seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dreamline.result import StageResult
from dreamline.statistics import paired_difference
from flows.stages import Plan

TASKS = ("generation", "editing")


def comparisons(plan: Plan, results: Mapping[str, StageResult]) -> list[dict[str, Any]]:
    """Every evaluated checkpoint against what was measured of the checkpoint that it started from.

    Returns:
        One entry a pair and task: `before` and `after` (names in `pipeline.evaluate`), `task`, `difference` (mean of
        after - before, categories weighing the same), `low` and `high` (95 % paired bootstrap) and `num_items`.
    """
    found = []
    for before, after in _pairs(plan):
        records = [_records(results.get(f"eval-{name}")) for name in (before, after)]
        for task in TASKS:
            old, new = (part[task] for part in records)
            shared = [item for item in old if item in new]
            if not shared:
                continue
            difference = paired_difference(
                [old[item]["correct"] for item in shared],
                [new[item]["correct"] for item in shared],
                [old[item]["category"] for item in shared],
            )
            found.append(
                {
                    "before": before,
                    "after": after,
                    "task": task,
                    "difference": difference.mean,
                    "low": difference.low,
                    "high": difference.high,
                    "num_items": len(shared),
                }
            )
    return found


def _pairs(plan: Plan) -> Iterator[tuple[str, str]]:
    evaluations = {node.name.removeprefix("eval-"): node.evaluates for node in plan.stages.values() if node.evaluates}
    for after, stage in evaluations.items():
        start = plan.stages[str(stage)].sources.get("init_from")
        if after != stage or start is None:
            continue  # another look at a checkpoint, or one from nothing
        parent = start.partition(".")[0]
        yield from ((before, after) for before, looked in evaluations.items() if looked == parent)


def _records(result: StageResult | None) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Records by task and item."""
    records: dict[str, dict[str, Mapping[str, Any]]] = {task: {} for task in TASKS}
    path = Path(result.output("records")) if result else None
    for line in path.read_text().splitlines() if path else ():
        record = json.loads(line)
        records[record["task"]][record["id"]] = record
    return records
