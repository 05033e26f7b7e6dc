"""What a finished pipeline leaves behind: scores and champion in MLflow, the report, and summary.json, the marker."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamline import tracking
from dreamline.result import StageResult, git_commit
from dreamline.storage import write_text
from flows.comparisons import comparisons
from flows.gates import below_floors
from flows.stages import STAGES, STUDENT, Plan

SUMMARY = "summary.json"
REPORT = "report.html"
SCORES = ("scenes/generation", "scenes/editing")


def stage_metrics(name: str, results: dict[str, StageResult]) -> dict[str, float]:
    """Metrics of a stage with those of its evaluation."""
    evaluation = results.get(f"eval-{name}")
    return {**results[name].metrics, **(evaluation.metrics if evaluation else {})}


def summarise(plan: Plan) -> dict[str, Any]:
    """The machine-readable summary of everything that is done."""
    results = plan.results()
    stages = []
    for name in [stage.name for stage in STAGES if stage.name in results]:
        result = results[name]
        checkpoint = str(result.output("checkpoint")) if "checkpoint" in result.outputs else None
        stages.append(
            {
                "name": name,
                "run_dir": result.run_dir,
                "wall_s": result.wall_s,
                "checkpoint": checkpoint,
                "mlflow_version": result.mlflow_version,
                "metrics": stage_metrics(name, results),
                "evaluation_dir": results[f"eval-{name}"].run_dir if f"eval-{name}" in results else None,
            }
        )
    extra = [
        {"name": name.removeprefix("eval-"), "metrics": results[name].metrics, "evaluation_dir": results[name].run_dir}
        for name, node in plan.stages.items()
        if node.evaluates and name != f"eval-{node.evaluates}" and name in results
    ]
    return {
        "commit": git_commit(),
        "preset": plan.preset,
        "stages": stages,
        "extra_evaluations": extra,
        "comparisons": comparisons(plan, results),
    }


def read_summary(plan: Plan) -> dict[str, Any] | None:
    """The summary of this very plan when it is complete and published, else None. Only looks at files."""
    path = plan.preset_dir / SUMMARY
    if plan.missing() or not path.is_file() or not (plan.preset_dir / REPORT).is_file():
        return None
    value: dict[str, Any] = json.loads(path.read_text())
    return value if {**summarise(plan), "commit": value.get("commit")} == value else None


def publish(plan: Plan) -> dict[str, Any]:
    """Record scores, choose the champion, write the report and the summary. May be repeated."""
    record_scores(plan, plan.results())
    write_the_report(plan)
    summary = summarise(plan)
    write_text(plan.preset_dir / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary


def write_the_report(plan: Plan) -> Path:
    """Write workspace/<preset>/report.html from what is done."""
    from flows.report import write_report  # templates and charts, for this alone

    return write_report(plan.preset_dir, summarise(plan))


def record_scores(plan: Plan, results: dict[str, StageResult], only: Iterable[str] | None = None) -> None:
    """Tag model versions with their scores, and let a student that passes the floors be champion."""
    if plan.tracking_uri is None:
        return
    for name in results if only is None else only:
        stage = plan.stages[name].evaluates
        if stage is None or name != f"eval-{stage}" or stage not in results:
            continue
        version = results[stage].mlflow_version or tracking.find_version(plan.tracking_uri, results[stage].digest)
        if version is None:
            continue
        metrics = results[name].metrics
        tags = {key: f"{value:.4f}" for key, value in metrics.items()}
        if stage == STUDENT:
            missed = below_floors(metrics, plan.config.floors)
            tags["floors"] = "; ".join(missed) if missed else "passed"
            if not missed:
                tracking.set_alias(plan.tracking_uri, "champion", version)
        tracking.tag_version(plan.tracking_uri, version, tags)


def score_rows(summary: dict[str, Any]) -> list[dict[str, str]]:
    """Rows of the table of scores, one per stage: texts, with intervals where they were measured."""
    return [
        {
            "stage": stage["name"],
            **{score.removeprefix("scenes/"): _interval(stage["metrics"], score) for score in SCORES},
            "time": f"{stage['wall_s']:.0f} s",
            "version": stage["mlflow_version"] or "",
        }
        for stage in summary["stages"]
    ]


def _interval(metrics: dict[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{metrics[name]:.3f}{interval}"
