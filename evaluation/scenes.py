"""The scene benchmark of one checkpoint: pictures, verdicts, scores with intervals, and samples for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dreamline.model.generator import Generator, Sampling
from dreamline.scenes.benchmark import (
    EditItem,
    GenerationItem,
    edit_items,
    generation_items,
    score_edit,
    score_generation,
)
from dreamline.scenes.detector import detect_many
from dreamline.scenes.render import render
from dreamline.statistics import stratified_interval
from dreamline.storage import write_json
from evaluation.config import EvaluationStage

Chunk = tuple[str, int, int]  # task, first item, end


@dataclass(frozen=True)
class Judged:
    """One picture and its verdict."""

    task: str  # "generation" or "editing"
    number: int
    item: GenerationItem | EditItem
    image: NDArray[np.uint8]
    verdicts: dict[str, bool]

    @property
    def category(self) -> str:
        """GenEval category or edit type."""
        return self.item.category if isinstance(self.item, GenerationItem) else self.item.type

    @property
    def ok(self) -> bool:
        """Whether the picture is exactly what was asked."""
        return self.verdicts["correct"]

    def record(self) -> dict[str, Any]:
        """One line of records.jsonl."""
        prompt = self.item.prompt if isinstance(self.item, GenerationItem) else self.item.instruction
        return {
            "task": self.task,
            "id": self.item.id,
            "category": self.category,
            "prompt": prompt,
            "held_out": self.item.held_out,
            **self.verdicts,
        }


def chunks_of(stage: EvaluationStage) -> list[Chunk]:
    """All items of the benchmark, a batch at a time."""
    return [
        (task, start, min(start + stage.batch_size, number))
        for task, number in (("generation", stage.num_prompts), ("editing", stage.num_edits))
        for start in range(0, number, stage.batch_size)
    ]


def judge(checkpoint: str, stage: EvaluationStage, threads: int, chunks: Sequence[Chunk]) -> list[Judged]:
    """Make and judge the pictures of some chunks with one loaded model."""
    torch.set_num_threads(threads)
    return judge_with(Generator.load(Path(checkpoint)), stage, chunks)


def judge_with(generator: Generator, stage: EvaluationStage, chunks: Sequence[Chunk]) -> list[Judged]:
    """Make and judge the pictures of some chunks."""
    sampling = Sampling(**stage.sampling.model_dump())
    generations = generation_items(stage.world, stage.num_prompts, stage.seed)
    edits = edit_items(stage.world, stage.num_edits, stage.seed)
    judged = []
    for task, start, end in chunks:
        if task == "generation":
            judged += _judge_generations(generator, sampling, stage, generations[start:end], start)
        else:
            judged += _judge_edits(generator, sampling, stage, edits[start:end], start)
    return judged


def _judge_generations(
    generator: Generator, sampling: Sampling, stage: EvaluationStage, items: Sequence[GenerationItem], first: int
) -> list[Judged]:
    images = generator.pictures([item.prompt for item in items], [item.seed for item in items], sampling)
    seen = detect_many(images, stage.world)
    return [
        Judged("generation", first + number, item, image, {"correct": score_generation(item, scene)})
        for number, (item, image, scene) in enumerate(zip(items, images, seen, strict=True))
    ]


def _judge_edits(
    generator: Generator, sampling: Sampling, stage: EvaluationStage, items: Sequence[EditItem], first: int
) -> list[Judged]:
    sources = [Image.fromarray(render(item.source, stage.world)) for item in items]
    seeds = [item.seed for item in items]
    images = generator.pictures([item.instruction for item in items], seeds, sampling, sources)
    judged = []
    for number, (item, image, scene) in enumerate(zip(items, images, detect_many(images, stage.world), strict=True)):
        score = score_edit(item, scene)
        verdicts = {"correct": score.both, "followed": score.followed, "preserved": score.preserved}
        judged.append(Judged("editing", first + number, item, image, verdicts))
    return judged


def summarise(judged: Sequence[Judged]) -> dict[str, float]:
    """Scores by task and category; a task's score is the mean of its categories, with a 95 % bootstrap interval."""
    metrics: dict[str, float] = {}
    for task in ("generation", "editing"):
        items = [item for item in judged if item.task == task]
        groups: dict[str, list[float]] = {}
        for item in items:
            groups.setdefault(item.category, []).append(float(item.ok))
        overall = stratified_interval(groups)
        metrics[f"scenes/{task}"] = overall.mean
        metrics[f"scenes/{task}_low"], metrics[f"scenes/{task}_high"] = overall.low, overall.high
        metrics |= {f"scenes/{task}/{name}": float(np.mean(values)) for name, values in sorted(groups.items())}
        for held_out, name in ((True, "held_out"), (False, "familiar")):
            part = [float(item.ok) for item in items if item.item.held_out is held_out]
            if part:
                metrics[f"scenes/{task}/{name}"] = float(np.mean(part))
        metrics[f"scenes/{task}/num_items"] = float(len(items))
    for verdict in ("followed", "preserved"):
        values = [float(item.verdicts[verdict]) for item in judged if item.task == "editing"]
        metrics[f"scenes/editing/{verdict}"] = float(np.mean(values))
    return metrics


def write_samples(folder: Path, judged: Sequence[Judged], stage: EvaluationStage) -> None:
    """PNGs of the first items of each task, with samples.json; the same items for every checkpoint of one seed."""
    listing = []
    for item in judged:
        if item.number >= stage.num_samples:
            continue
        name = f"{item.task}-{item.number:03d}"
        Image.fromarray(item.image).save(folder / f"{name}.png")
        entry = item.record() | {"kind": item.task, "image": f"{name}.png", "ok": item.ok}
        if isinstance(item.item, EditItem):
            for part, scene in (("source", item.item.source), ("target", item.item.target)):
                Image.fromarray(render(scene, stage.world)).save(folder / f"{name}-{part}.png")
                entry[part] = f"{name}-{part}.png"
        listing.append(entry)
    write_json(folder / "samples.json", listing)
