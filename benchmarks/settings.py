"""Settings of reward fine-tuning or distillation on a finished demo: what each does to the exact scores, paired.

`python benchmarks/settings.py --stage refl --preset-dir workspace/demo --json FILE` runs one process per setting, one
thread each. Each setting is compared with what it starts from: sft, or for students their teacher.
The items have a seed of their own, so that settings are not chosen on those of the demo's evaluation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from runs import run_all, write_record

SETTINGS: dict[str, dict[str, list[str]]] = {
    "refl": {
        "demo": [],
        "without-the-way-back": ["start_share=0"],
        "half-way-back": ["start_share=0.5"],
        "240-steps": ["start_share=0", "steps=240"],
        "guided": ["start_share=0", "guidance_scale=1.5"],
        "lr-7e-5": ["optim.lr=7e-5", "steps=160", "start_share=0"],
        "lr-3e-4": ["optim.lr=3e-4", "mixture.t2i=1", "start_share=0.5"],
        "earlier-steps": ["gradient_from=2"],
        "editing-too": ["editing.weight=0.5"],
    },
    "dmd2": {
        "demo": [],
        "regression": ["steps=240"],
        "regression-lr-3e-4": ["steps=240", "optim.lr=3e-4"],
        "regression-lr-6e-4": ["steps=240", "optim.lr=6e-4"],
        "regression-3-to-1": ["steps=240", "optim.lr=6e-4", "mixture.t2i=3", "regression.substeps=2"],
        "reward": ["reward={generation: {weight: 0.5, cap: 3.0}, editing: {weight: 0.05, cap: 3.0}}"],
        "less-reward": ["reward={generation: {weight: 0.15, cap: 3.0}, editing: {weight: 0.05, cap: 3.0}}"],
        "reward-and-more-matching": [
            "reward={generation: {weight: 0.5, cap: 3.0}, editing: {weight: 0.05, cap: 3.0}}",
            "steps=360",
        ],
        "more-regression": ["steps=460", "regression.steps=400"],
        "matching": ["regression.steps=0", "regression.weight=0", "matched_from=0"],
        "matching-all-steps": ["regression.weight=0", "matched_from=0"],
    },
}
START = "start"  # what the settings begin from, in full steps
NAIVE = "naive"  # the same in as many steps as the student has, with guidance
ITEMS, SEED = 600, 1


def main() -> None:
    """Run what is missing, two at a time, then print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=SETTINGS, default="refl")
    parser.add_argument("--preset-dir", type=Path, default=Path("workspace/demo"), help="of a finished preset")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/settings"))
    parser.add_argument("--only", nargs="*", help="some of the settings")
    parser.add_argument("--quick", action="store_true", help="a few steps and items: shows that it runs")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--run", help="internal: one run in this process")
    options = parser.parse_args()
    if options.run:
        run_one(options)
        return
    names = options.only or [*([NAIVE] if options.stage == "dmd2" else []), *SETTINGS[options.stage]]
    missing = [name for name in (START, *names) if not place(name, options).is_file()]
    run_all({name: command_of(name, options) for name in missing})
    rows = [row for name in names for row in rows_of(name, options)]
    for row in rows:
        print(f"{row['what']:<50} {row['ours']:.3f}   start {row['theirs']:.3f}   {row['unit']}")
    write_record(options.json, f"{options.stage}_settings", rows)


def place(name: str, options: argparse.Namespace) -> Path:
    """Verdicts of one run."""
    size = "quick" if options.quick else "full"
    return Path(options.workspace) / options.stage / size / name / "verdicts.json"


def command_of(name: str, options: argparse.Namespace) -> list[str]:
    """The process of one run."""
    command = [sys.executable, __file__, "--run", name, "--stage", options.stage]
    command += ["--preset-dir", str(options.preset_dir), "--workspace", str(options.workspace)]
    return [*command, *(["--quick"] if options.quick else [])]


def run_one(options: argparse.Namespace) -> None:
    """Train with one setting (or take the start as it is) and judge it."""
    import torch

    torch.set_num_threads(1)
    from dreamline.model.generator import STUDENT, Generator
    from dreamline.model.unet import load_unet
    from evaluation.config import EvaluationStage, SamplingConfig
    from evaluation.scenes import chunks_of, judge_with

    job = planned(options)
    trained = options.run not in (START, NAIVE)
    unet = tuned(job, options.stage) if trained else load_unet(job.input("init_from"))
    num, sampling = 60 if options.quick else ITEMS, SamplingConfig(guidance_scale=1.5, image_guidance_scale=1.0)
    if options.run == NAIVE:
        sampling = sampling.model_copy(update={"num_steps": STUDENT.num_steps})
    elif trained and options.stage == "dmd2":
        sampling = SamplingConfig(num_steps=STUDENT.num_steps, guidance_scale=1.0, image_guidance_scale=1.0)
    stage = EvaluationStage(num_prompts=num, num_edits=num, seed=SEED, sampling=sampling)
    generator = Generator(unet.requires_grad_(False).eval(), job.input("frozen"), torch.device("cpu"))
    judged = judge_with(generator, stage, chunks_of(stage))
    target = place(options.run, options)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([[item.task, item.category, item.ok] for item in judged]) + "\n")


def planned(options: argparse.Namespace) -> Any:
    """The job of the finished preset with the setting applied."""
    from distill.config import DMD2Job
    from dreamline.config import load
    from rl.config import ReFLJob

    found = sorted(
        options.preset_dir.glob(f"runs/{options.stage}/*/config.yaml"), key=lambda path: path.stat().st_mtime
    )
    if not found:
        raise SystemExit(f"{options.preset_dir}: no {options.stage} run there; run `dreamline run --preset demo` first")
    overrides = [f"stage.{item}" for item in SETTINGS[options.stage].get(options.run, [])]
    if options.quick:
        overrides += ["stage.steps=4", *(["stage.regression.steps=2"] if options.stage == "dmd2" else [])]
    if options.stage == "refl":
        return load(ReFLJob, found[-1], [*overrides, "stage.probe=null"])
    return load(DMD2Job, found[-1], overrides)


def tuned(job: Any, name: str) -> Any:
    """The averaged network after the stage, in this process and without DeepSpeed."""
    from distill import worker as distill_worker
    from dreamline.engine.checkpoint import TrainState
    from dreamline.engine.ema import EMA
    from dreamline.engine.loop import fit
    from dreamline.engine.trainable import LocalTrainable
    from dreamline.engine.world import World
    from dreamline.model.unet import load_unet
    from rl import worker as rl_worker

    stage, world = job.stage, World()
    made = (rl_worker if name == "refl" else distill_worker).assemble(job, world)
    modules = dict(made.objective.modules)
    unet = modules["student"]
    trainables = {
        part: LocalTrainable(module, stage.optim_for(part), stage.accumulation(1)) for part, module in modules.items()
    }
    ema = EMA(unet, stage.ema_decay)
    fit(stage, made.objective, trainables, {"student": ema}, made.data, TrainState(), world, stage.steps)
    ema.copy_to(unet)
    if name == "refl":
        rl_worker.blend(unet, load_unet(job.input("init_from")), stage.start_share)
    return unet


def rows_of(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a task."""
    from dreamline.statistics import paired_difference, stratified_interval

    before, after = (json.loads(place(run, options).read_text()) for run in (START, name))
    rows = []
    for task in ("generation", "editing"):
        old, new = ([item for item in part if item[0] == task] for part in (before, after))
        groups = [item[1] for item in old]
        change = paired_difference([item[2] for item in old], [item[2] for item in new], groups)
        scores = []
        for part in (new, old):
            by_group: dict[str, list[float]] = {}
            for _, group, right in part:
                by_group.setdefault(group, []).append(float(right))
            scores.append(stratified_interval(by_group).mean)
        interval = f"change {change.mean:+.3f}, 95 % {change.low:+.3f} to {change.high:+.3f}"
        rows.append(
            {
                "what": f"{name}: {task}",
                "ours": round(scores[0], 4),
                "theirs": round(scores[1], 4),
                "ratio": round(scores[0] / (scores[1] or 1), 3),
                "unit": f"share exactly right after and before; {interval}",
            }
        )
    return rows


if __name__ == "__main__":
    main()
