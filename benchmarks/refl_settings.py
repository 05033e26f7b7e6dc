"""Settings of reward fine-tuning on a finished demo: what each does to the exact scores, paired with where it started.

`python -m benchmarks.refl_settings --preset-dir workspace/demo --json FILE` runs one process per setting, one thread
each. The items have a seed of their own, so that settings are not chosen on those of the demo's evaluation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.ablations import commit, machine

SETTINGS = {
    "demo": [],
    "both-weights-0.1": ["generation.weight=0.1", "editing.weight=0.1"],
    "lr-3e-4": ["optim.lr=3e-4"],
    "earlier-steps": ["gradient_from=2"],
    "no-cap": ["generation.cap=null", "editing.cap=null"],
    "no-regulariser": ["flow_matching_weight=0"],
    "neither": ["generation.cap=null", "editing.cap=null", "flow_matching_weight=0"],
}
ITEMS, SEED = 600, 1


def main() -> None:
    """Run what is missing, two at a time, then print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset-dir", type=Path, default=Path("workspace/demo"), help="of a finished preset")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/refl-settings"))
    parser.add_argument("--only", nargs="*", choices=SETTINGS, help="some of the settings")
    parser.add_argument("--quick", action="store_true", help="a few steps and items: shows that it runs")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--run", choices=["start", *SETTINGS], help="internal: one run in this process")
    options = parser.parse_args()
    if options.run:
        run_one(options)
        return
    names = options.only or list(SETTINGS)
    run_all(["start", *names], options)
    rows = [row for name in names for row in rows_of(name, options)]
    for row in rows:
        print(f"{row['what']:<50} {row['ours']:.3f}   before {row['theirs']:.3f}   {row['unit']}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        value = {"name": "refl_settings", "commit": commit(), "machine": machine(), "rows": rows}
        options.json.write_text(json.dumps(value, indent=1) + "\n")


def place(name: str, options: argparse.Namespace) -> Path:
    """Verdicts of one run."""
    return Path(options.workspace) / ("quick" if options.quick else "full") / name / "verdicts.json"


def run_all(names: list[str], options: argparse.Namespace) -> None:
    """Two processes at a time."""
    waiting = [name for name in names if not place(name, options).is_file()]
    running: dict[str, subprocess.Popen[bytes]] = {}
    while waiting or running:
        while waiting and len(running) < 2:
            name = waiting.pop(0)
            command = [sys.executable, "-m", "benchmarks.refl_settings", "--run", name]
            command += ["--preset-dir", str(options.preset_dir), "--workspace", str(options.workspace)]
            running[name] = subprocess.Popen([*command, *(["--quick"] if options.quick else [])])
        time.sleep(0.5)
        for name, process in list(running.items()):
            if process.poll() is not None:
                if running.pop(name).returncode:
                    raise SystemExit(f"{name} failed; see above")
                print(f"{name} done", flush=True)


def run_one(options: argparse.Namespace) -> None:
    """Fine-tune with one setting (or take the start as it is) and judge it."""
    import torch

    torch.set_num_threads(1)
    from dreamline.model.generator import Generator
    from evaluation.config import EvaluationStage, SamplingConfig
    from evaluation.scenes import chunks_of, judge_with

    job = planned(options)
    unet = tuned(job) if options.run != "start" else tuned(job, steps=0)
    num = 60 if options.quick else ITEMS
    sampling = SamplingConfig(guidance_scale=1.5, image_guidance_scale=1.0)
    stage = EvaluationStage(num_prompts=num, num_edits=num, seed=SEED, sampling=sampling)
    generator = Generator(unet, job.input("frozen"), torch.device("cpu"))
    judged = judge_with(generator, stage, chunks_of(stage))
    target = place(options.run, options)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([[item.task, item.category, item.ok] for item in judged]) + "\n")


def planned(options: argparse.Namespace) -> Any:
    """The job of the finished preset, with the setting applied."""
    from dreamline.config import load
    from rl.config import ReFLJob

    found = sorted(options.preset_dir.glob("runs/refl/*/config.yaml"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SystemExit(f"{options.preset_dir}: no refl run there; run `dreamline run --preset demo` first")
    overrides = [f"stage.{item}" for item in SETTINGS.get(options.run, [])]
    return load(ReFLJob, found[-1], [*overrides, *(["stage.steps=4"] if options.quick else [])])


def tuned(job: Any, steps: int | None = None) -> Any:
    """The averaged network after the stage, in this process and without DeepSpeed."""
    from dreamline.engine.checkpoint import TrainState
    from dreamline.engine.ema import EMA
    from dreamline.engine.loop import fit
    from dreamline.engine.trainable import LocalTrainable
    from dreamline.engine.world import World
    from rl.worker import assemble

    stage, world = job.stage, World()
    made = assemble(job, world)
    unet = made.objective.modules["student"]
    if steps == 0:
        return unet.eval()
    trainables = {"student": LocalTrainable(unet, stage.optim, stage.accumulation(1))}
    ema = EMA(unet, stage.ema_decay)
    fit(stage, made.objective, trainables, {"student": ema}, made.data, TrainState(), world, stage.steps)
    ema.copy_to(unet)
    return unet.eval()


def rows_of(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a task."""
    from dreamline.statistics import paired_difference, stratified_interval

    before, after = (json.loads(place(run, options).read_text()) for run in ("start", name))
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
