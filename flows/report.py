"""One self-contained HTML file about a preset's runs: what was asked, what came out, what fails, before and after."""

from __future__ import annotations

import base64
import datetime
import json
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dreamline.result import METRICS, StageResult, read_result
from dreamline.storage import write_text
from flows.charts import Score, curves, journey
from flows.contrast import contrasts

REPORT = "report.html"
TASKS = {"generation": "Generation", "editing": "Editing"}
TITLES = {
    "data": "images, captions and edits",
    "encode": "latents and text features",
    "t2i": "text to image",
    "edit": "editing",
    "joint": "both tasks together",
    "sft": "fine-tuning at a lower rate",
    "reward": "reward model",
    "refl": "reward fine-tuning",
    "hasty": "a reward model trained too briefly, planted",
    "unguarded": "fine-tuning towards that one without guards, planted",
    "dmd2": "distilled to 4 steps",
}
SHOWN_ROWS = 6  # of each sample grid; the others unfold
PACKAGES = ("torch", "diffusers", "transformers", "deepspeed", "ray", "prefect", "mlflow", "webdataset", "numpy")
PLOTTED = ("loss", "reward", "pair_accuracy", "accuracy")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """One stage of the summary with the files of its run and of its evaluation."""

    name: str
    run_dir: Path
    evaluation_dir: Path | None
    wall_s: float
    metrics: Mapping[str, float]
    mlflow_version: str | None = None
    result: StageResult | None = field(default=None)

    @property
    def title(self) -> str:
        """What the stage does, in a few words."""
        return TITLES.get(self.name, "")

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """RUN/config.yaml."""
        return _read_yaml(self.run_dir / "config.yaml")

    @cached_property
    def curve(self) -> Sequence[Row]:
        """Rows of RUN/metrics.jsonl."""
        return _read_lines(self.run_dir / METRICS)

    @cached_property
    def records(self) -> Sequence[Row]:
        """One verdict per evaluated item."""
        return _read_lines(self.evaluation_dir / "records.jsonl") if self.evaluation_dir else ()

    @cached_property
    def samples(self) -> Sequence[Row]:
        """The pictures kept for this report; the same items after every stage."""
        path = self.evaluation_dir / "samples" / "samples.json" if self.evaluation_dir else None
        return json.loads(path.read_text()) if path and path.is_file() else ()

    @cached_property
    def sampling(self) -> str:
        """How the evaluated pictures were made."""
        return _sampling(self.evaluation_dir) if self.evaluation_dir else ""

    def score(self, task: str) -> Score | None:
        """Score of a task with its interval, if it was evaluated."""
        name = f"scenes/{task}"
        if name not in self.metrics:
            return None
        value = self.metrics[name]
        return Score(value, self.metrics.get(f"{name}_low", value), self.metrics.get(f"{name}_high", value))

    def count(self, task: str) -> int:
        """Number of evaluated items of a task."""
        return sum(record["task"] == task for record in self.records)

    def categories(self, task: str) -> dict[str, list[bool]]:
        """Verdicts by category."""
        found: dict[str, list[bool]] = {}
        for record in self.records:
            if record["task"] == task:
                found.setdefault(record["category"], []).append(bool(record["correct"]))
        return found


def write_report(preset_dir: Path, summary: Mapping[str, Any]) -> Path:
    """Write PRESET/report.html.

    Args:
        preset_dir: workspace/<preset>.
        summary: what summary.json holds: commit, preset, stages (each with name, run_dir, wall_s, checkpoint,
            mlflow_version, metrics and, where it was evaluated, evaluation_dir). Relative folders start at the working
            directory or at `preset_dir`. Files that are not there (a stage still to run) leave their part out.

    Returns:
        Path of the report, written atomically.
    """
    stages = [_stage(preset_dir, entry) for entry in summary["stages"]]
    extra = summary.get("extra_evaluations", ())
    evaluated = [stage for stage in stages if any(stage.score(task) for task in TASKS)]
    environment = Environment(
        loader=PackageLoader("flows", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=lambda value: f"{100 * value:.0f}", duration=duration, words=words)
    page = environment.get_template("report_template.html").render(
        preset=summary["preset"],
        commit=summary.get("commit") or "unknown",
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        total=sum(stage.wall_s for stage in stages),
        tasks=TASKS,
        stages=stages,
        evaluated=evaluated,
        findings=list(findings(evaluated)),
        banner=banner(evaluated),
        journey=journey(
            [stage.name for stage in evaluated],
            {title: [stage.score(task) for stage in evaluated] for task, title in TASKS.items()},
        ),
        changes=score_changes(evaluated),
        grids=[grid(task, evaluated) for task in TASKS],
        shown_rows=SHOWN_ROWS,
        heats=[heat(task, evaluated) for task in TASKS],
        comparisons=[
            {**pair, "verdict": "no difference seen" if pair["low"] <= 0 <= pair["high"] else _better(pair["low"] > 0)}
            for pair in summary.get("comparisons", ())
        ],
        labels={entry["name"]: _sampling(_locate(preset_dir, entry["evaluation_dir"])) for entry in extra},
        contrasts=contrasts(
            {stage.name: stage.curve for stage in stages}, {stage.name: stage.metrics for stage in stages}
        ),
        charts=[(stage, charts(stage)) for stage in stages if stage.curve],
        data_sets=list(data_sets(stages)),
        settings=[(stage, yaml.safe_dump(dict(stage.config), sort_keys=False)) for stage in stages if stage.config],
        slowest=max((stage.wall_s for stage in stages), default=1) or 1,
        provenance=provenance(stages),
    )
    path = preset_dir / REPORT
    write_text(path, page)
    return path


def findings(evaluated: Sequence[Stage]) -> Iterator[str]:
    """The report in a few sentences."""
    if not evaluated:
        yield "No stage has been evaluated yet."
        return
    last = evaluated[-1]
    for task, title in TASKS.items():
        rates = {name: statistics.fmean(verdicts) for name, verdicts in last.categories(task).items()}
        weak = sorted((rate, name) for name, rate in rates.items() if rate < 0.9)[:3]
        if weak:
            yield (
                f"{title} fails most at " + ", ".join(f"{words(name)} ({rate:.0%} right)" for rate, name in weak) + "."
            )
        elif rates:
            yield f"{title} succeeds at least nine times in ten in every category."
    changes = [
        (after - before, task, stage.name)
        for earlier, stage in pairwise(evaluated)
        for task in TASKS
        for before, after in [(_value(earlier, task), _value(stage, task))]
        if before is not None and after is not None
    ]
    for change, task, name in sorted(changes, key=lambda item: -abs(item[0]))[:3]:
        if abs(change) >= 0.02:
            yield f"{name} {'raised' if change > 0 else 'lowered'} {task} by {100 * abs(change):.0f} points."


def score_changes(evaluated: Sequence[Stage]) -> dict[tuple[str, str], float]:
    """Points gained since the evaluated stage before, by (stage, task)."""
    found = {}
    for before, after in pairwise(evaluated):
        for task in TASKS:
            old, new = _value(before, task), _value(after, task)
            if old is not None and new is not None:
                found[after.name, task] = 100 * (new - old)
    return found


def banner(evaluated: Sequence[Stage]) -> list[dict[str, str]]:
    """Right pictures of the last evaluated stage, for the head of the page."""
    if not evaluated:
        return []
    last = evaluated[-1]
    chosen = [sample for sample in last.samples if sample["ok"]][:12]
    return [{"image": image(last, sample["image"]), "prompt": sample["prompt"]} for sample in chosen]


def grid(task: str, evaluated: Sequence[Stage]) -> dict[str, Any]:
    """Pictures of fixed items, a row per item and a column per stage."""
    by_stage = {
        stage.name: {sample["id"]: (stage, sample) for sample in stage.samples if sample["kind"] == task}
        for stage in evaluated
    }
    columns = [name for name, samples in by_stage.items() if samples]
    rows: dict[str, dict[str, Any]] = {}
    for name in columns:
        for key, (stage, sample) in by_stage[name].items():
            row = rows.setdefault(key, {"prompt": sample["prompt"], "category": sample["category"], "cells": {}})
            row["cells"][name] = {"image": image(stage, sample["image"]), "ok": sample["ok"]}
            for part in ("source", "target"):
                if sample.get(part):
                    row[part] = image(stage, sample[part])
    return {"task": task, "title": TASKS[task], "columns": columns, "rows": list(rows.values())}


def heat(task: str, evaluated: Sequence[Stage]) -> dict[str, Any]:
    """Share of right pictures by category (rows) and stage (columns)."""
    shares = {stage.name: stage.categories(task) for stage in evaluated}
    names = list(dict.fromkeys(name for categories in shares.values() for name in categories))
    rows = []
    for name in names:
        verdicts = [categories.get(name) for categories in shares.values()]
        cells = [{"value": statistics.fmean(items)} if items else None for items in verdicts]
        rows.append({"name": name, "cells": cells, "number": max(len(items or ()) for items in verdicts)})
    extra = []
    for name in ("followed", "preserved", "held_out", "familiar"):
        values = [stage.metrics.get(f"scenes/{task}/{name}") for stage in evaluated]
        if any(value is not None for value in values):
            extra.append({"name": name, "cells": [None if value is None else {"value": value} for value in values]})
    return {"task": task, "title": TASKS[task], "columns": list(shares), "rows": rows, "extra": extra}


def charts(stage: Stage) -> list[dict[str, Any]]:
    """Curves of a stage: series of one kind and of similar size share a chart."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in stage.curve:
        for name, value in row.items():
            if name.split("/")[-1].startswith(PLOTTED) and isinstance(value, int | float):
                series.setdefault(name, []).append((row["step"], value))
    groups: list[dict[str, list[tuple[float, float]]]] = []
    for name, points in series.items():
        if any(points == other for group in groups for other in group.values()):
            continue  # one task only: its loss is the loss
        for group in groups:
            first, others = next(iter(group.items()))
            sizes = sorted(abs(statistics.median(value for _, value in line)) for line in (points, others))
            if name.split("_")[0] == first.split("_")[0] and sizes[1] <= 5 * sizes[0]:
                group[name] = points
                break
        else:
            groups.append({name: points})
    made = [{"names": list(group), "svg": curves(group, stage.name)} for group in groups]
    return [chart for chart in made if chart["svg"]]


def data_sets(stages: Sequence[Stage]) -> Iterator[dict[str, Any]]:
    """What dataset.json says about the outputs of the data stage."""
    for stage in stages:
        for name, path in (stage.result.outputs if stage.result and stage.name == "data" else {}).items():
            file = stage.run_dir / path / "dataset.json"
            if not file.is_file():
                continue
            info = json.loads(file.read_text())
            tables = {title: counts for title, counts in info.get("statistics", {}).items() if len(counts) <= 30}
            if info.get("rejected"):
                tables["rejected"] = info["rejected"]
            yield {"name": name, "info": info, "shards": len(info.get("shards", ())), "tables": tables}


def provenance(stages: Sequence[Stage]) -> dict[str, str]:
    """Where the numbers come from."""
    commits = sorted({stage.result.commit for stage in stages if stage.result and stage.result.commit})
    sources = sorted({stage.result.source for stage in stages if stage.result and stage.result.source})
    known = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"commits of the stages": ", ".join(commits), "source hashes": ", ".join(sources), **known}


def image(stage: Stage, name: str) -> Markup:
    """A picture of a stage's samples as a data address; empty when the file is missing."""
    assert stage.evaluation_dir is not None
    path = stage.evaluation_dir / "samples" / Path(name).name
    content = base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""
    return Markup(f"data:image/png;base64,{content}") if content else Markup("")


def duration(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def words(name: str) -> str:
    """'color_attribution' -> 'color attribution'."""
    return name.replace("_", " ")


def _stage(preset_dir: Path, entry: Row) -> Stage:
    run_dir = _locate(preset_dir, entry["run_dir"])
    evaluation = entry.get("evaluation_dir")
    return Stage(
        name=entry["name"],
        run_dir=run_dir,
        evaluation_dir=_locate(preset_dir, evaluation) if evaluation else None,
        wall_s=entry.get("wall_s") or 0.0,
        metrics=entry.get("metrics") or {},
        mlflow_version=entry.get("mlflow_version"),
        result=read_result(run_dir),
    )


def _locate(preset_dir: Path, folder: str) -> Path:
    """A folder of the summary: absolute, from the working directory, or from the preset's folder."""
    return Path(folder) if Path(folder).exists() else preset_dir / folder


def _sampling(evaluation_dir: Path) -> str:
    sampling = _read_yaml(evaluation_dir / "config.yaml").get("stage", {}).get("sampling", {})
    if not sampling:
        return ""
    guided = sampling["guidance_scale"] != 1 or sampling["image_guidance_scale"] != 1
    return f"{sampling['num_steps']} steps{'' if guided else ' without guidance'}"


def _better(up: bool) -> str:
    return "better" if up else "worse"


def _value(stage: Stage, task: str) -> float | None:
    score = stage.score(task)
    return None if score is None else score.value


def _read_yaml(path: Path) -> Mapping[str, Any]:
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file; a last line cut by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
