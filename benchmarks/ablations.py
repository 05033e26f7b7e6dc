"""What choices of the recipe, or with --sweep of settings, are worth at equal compute: `make ablations`.

Every arm trains from nothing for the same number of CPU-seconds on one thread, with three seeds, and is judged on the
same held-out prompts and edits. Results of finished runs stay in --workspace, so an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs import run_all, write_record

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Phase:
    """A part of an arm: its share of the compute, and the weights of generation and editing in its batches."""

    share: float
    t2i: float
    edit: float


JOINT = (Phase(1.0, 1, 1),)


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    title: str
    phases: tuple[Phase, ...] = JOINT
    channels: bool = False  # source beside the target in channels, not in space
    foreground: float | None = None
    model: dict[str, Any] = field(default_factory=dict)
    lr: float = 3e-3
    batch: int = 128
    sigma_mean: float = 0.6


ARMS = {
    "joint": Arm("joint from nothing"),
    "t2i-joint": Arm("T2I 1/3, joint 2/3", (Phase(1 / 3, 1, 0), Phase(2 / 3, 1, 1))),
    "progressive": Arm("T2I 1/6, edit 1/6, joint 2/3", (Phase(1 / 6, 1, 0), Phase(1 / 6, 0, 1), Phase(2 / 3, 1, 1))),
    "thirds": Arm("T2I 1/3, edit 1/3, joint 1/3", (Phase(1 / 3, 1, 0), Phase(1 / 3, 0, 1), Phase(1 / 3, 1, 1))),
    "channels": Arm("joint, source concatenated in channels", channels=True),
    "foreground": Arm("joint, foreground weight on edits", foreground=0.3),
}
SWEEP = {
    "joint": Arm("demo's settings"),
    "lr-2e-3": Arm("learning rate 2e-3", lr=2e-3),
    "lr-5e-3": Arm("learning rate 5e-3", lr=5e-3),
    "batch-64": Arm("batch 64, learning rate 2e-3", batch=64, lr=2e-3),
    "batch-256": Arm("batch 256, learning rate 4e-3", batch=256, lr=4e-3),
    "sigma-0": Arm("noise levels sigmoid(N(0, 1))", sigma_mean=0.0),
    "sigma-1.2": Arm("noise levels sigmoid(N(1.2, 1))", sigma_mean=1.2),
    "wide": Arm("channels (64, 128)", model={"block_out_channels": (64, 128)}),
    "deep": Arm("transformer layers (1, 2)", model={"transformer_layers_per_block": (1, 2)}),
    "narrow": Arm("channels (48, 64)", model={"block_out_channels": (48, 64)}),
}
BASELINE = "joint"


def main() -> None:
    """Run what is missing, two at a time, then print and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--pictures", type=Path, help="write a grid of pictures here: a row per arm, one seed")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/ablations"))
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, one seed: shows that it runs")
    parser.add_argument("--sweep", action="store_true", help="settings instead of the recipe, one seed")
    parser.add_argument("--budget", type=float, default=300.0, help="CPU-seconds of training for each run")
    parser.add_argument("--items", type=int, default=300, help="held-out prompts, and as many edits")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--run", help="internal: ARM:SEED, one run in this process")
    options = parser.parse_args()
    if options.quick:
        options.budget, options.items = 5.0, 60
    if options.run:
        run_one(options)
        return
    prepare(options)
    seeds = [0] if options.quick or options.sweep else [0, 1, 2]
    arms = arms_of(options)
    work = [(arm, seed) for seed in seeds for arm in arms]
    missing = [item for item in work if not result_file(options, *item).is_file()]
    run_all({f"{arm}:{seed}": command_of(arm, seed, options) for arm, seed in missing}, options.processes)
    results = {(arm, seed): json.loads(result_file(options, arm, seed).read_text()) for arm, seed in work}
    rows = [row for name, arm in arms.items() for row in rows_of(name, arm, results, seeds)]
    for row in rows:
        print(f"{row['what']:<60} {row['ours']:.3f}   joint {row['theirs']:.3f}   {row['unit']}")
    write_record(options.json, "sweep" if options.sweep else "ablations", rows)
    if options.pictures:
        draw(options)


def arms_of(options: argparse.Namespace) -> dict[str, Arm]:
    """What is compared."""
    return SWEEP if options.sweep else ARMS


def prepare(options: argparse.Namespace) -> None:
    """Draw and encode the demo's data (the smoke preset's for --quick)."""
    from data_prep.config import DataJob, EncodeJob, encoders_input
    from data_prep.encode import run as encode
    from data_prep.run import run as draw_data
    from dreamline.config import Input, load, read_yaml

    runtime = {"runtime": {"workers": 2}}
    values = read_yaml(ROOT / "conf" / ("smoke" if options.quick else "demo") / "data.yaml")
    place = options.workspace.resolve() / ("quick" if options.quick else "demo")
    data = DataJob(preset="ablations", run_dir=str(place / "data"), **{**values, **runtime})
    made = draw_data(data)
    inputs = {kind: Input(path=str(made.output(kind)), digest=data.digest()) for kind in ("t2i", "edit")}
    inputs["encoders"] = encoders_input(ROOT / "assets" / "encoders")
    job = load(
        EncodeJob, ROOT / "conf/demo/encode.yaml", preset="ablations", run_dir=str(place / "encode"), inputs=inputs
    )
    encode(job)


def command_of(arm: str, seed: int, options: argparse.Namespace) -> list[str]:
    """The process of one run."""
    command = [sys.executable, __file__, "--run", f"{arm}:{seed}", "--workspace", str(options.workspace)]
    command += ["--budget", str(options.budget), "--items", str(options.items)]
    return command + [f"--{flag}" for flag in ("quick", "sweep") if getattr(options, flag)]


def encoded(options: argparse.Namespace) -> Path:
    """The encoded data."""
    return options.workspace / ("quick" if options.quick else "demo") / "encode"


def result_file(options: argparse.Namespace, arm: str, seed: int) -> Path:
    """Where a run leaves its scores."""
    return options.workspace / f"{arm}-{seed}-{options.budget:.0f}s-{options.items}" / "scores.json"


def run_one(options: argparse.Namespace) -> None:
    """Train and judge one arm with one seed."""
    import torch

    torch.set_num_threads(1)
    from dreamline.model.generator import Generator
    from evaluation.config import EvaluationStage, SamplingConfig
    from evaluation.scenes import chunks_of, judge_with, summarise, write_samples

    name, _, number = options.run.partition(":")
    arm, seed, frozen = arms_of(options)[name], int(number), encoded(options) / "frozen"
    unet, told = train(arm, seed, options)
    sampling = SamplingConfig(guidance_scale=1.5, image_guidance_scale=1.0)
    stage = EvaluationStage(num_prompts=options.items, num_edits=options.items, sampling=sampling)
    judged = judge_with(Generator(unet.eval(), frozen, torch.device("cpu")), stage, chunks_of(stage))
    place = result_file(options, name, seed)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_samples(place.parent, judged, stage)
    place.write_text(json.dumps({**told, **summarise(judged)}, indent=1) + "\n")


def train(arm: Arm, seed: int, options: argparse.Namespace) -> tuple[Any, dict[str, float]]:
    """The averaged network after the budget, and what it took."""
    from dreamline.data.features import FeatureSet
    from dreamline.data.mixture import Mixture
    from dreamline.engine.config import OptimConfig, SigmaConfig
    from dreamline.engine.ema import EMA
    from dreamline.engine.trainable import LocalTrainable
    from training.config import TrainStage
    from training.objective import FlowMatching

    folder = encoded(options)
    sets = {kind: FeatureSet(folder / kind) for kind in ("t2i", "edit")}
    unet = network(arm, folder / "frozen", sets["t2i"].buckets[0][:2], seed)
    optim, batch = OptimConfig(lr=arm.lr), arm.batch
    stage = TrainStage(
        name="arm", seed=seed, steps=1, micro_batch_size=batch, global_batch_size=batch, mixture={"t2i": 1},
        optim=optim, foreground_threshold=arm.foreground, sigma=SigmaConfig(mean=arm.sigma_mean),
    )  # fmt: skip
    objective, ema = FlowMatching(unet, stage), EMA(unet, stage.ema_decay)
    seen = steps = 0
    for phase in arm.phases:
        weights = {"t2i": phase.t2i, "edit": phase.edit}
        data = Mixture([(sets[kind], weight) for kind, weight in weights.items() if weight], seed)
        trainable = LocalTrainable(unet, optim, 1)  # every stage of the pipeline begins with a new optimiser
        started, budget = time.process_time(), phase.share * options.budget
        while (spent := time.process_time() - started) < budget:
            trainable.set_lr(optim.lr_at(int(1e6 * spent / budget), 1_000_000))
            (loss,) = objective.losses(data.batch(range(seen, seen + batch)), steps)
            trainable.backward(loss.value)
            trainable.step(last=True)
            seen, steps = seen + batch, steps + 1
            ema.update(unet, steps)
    ema.copy_to(unet)
    return unet, {"images": seen, "steps": steps}


def network(arm: Arm, frozen: Path, resolution: tuple[int, int], seed: int) -> Any:
    """The demo's U-Net, or the same one with the source in channels."""
    import torch

    from dreamline.model.config import UNetConfig
    from dreamline.model.unet import build_for

    unet = build_for(UNetConfig(**arm.model), frozen, resolution, seed)
    if not arm.channels:
        return unet

    class InChannels(torch.nn.Module):
        """Takes target | source side by side, as the in-context network does, and stacks them in channels instead."""

        def __init__(self) -> None:
            super().__init__()
            shape = {**unet.config, "in_channels": 2 * unet.config.in_channels}
            torch.manual_seed(seed)
            self.inner = type(unet).from_config(shape)
            self.config = unet.config

        def forward(self, sample: torch.Tensor, **conditions: Any) -> tuple[torch.Tensor]:
            target, source = sample.chunk(2, dim=3)
            made = self.inner(torch.cat([target, source], dim=1), **conditions)[0]
            return (torch.cat([made, torch.zeros_like(made)], dim=3),)

    return InChannels()


def rows_of(
    name: str, arm: Arm, results: dict[tuple[str, int], dict[str, float]], seeds: list[int]
) -> list[dict[str, Any]]:
    """Mean over the seeds beside that of the baseline."""
    rows = []
    for task in ("generation", "editing"):
        ours = [results[name, seed][f"scenes/{task}"] for seed in seeds]
        theirs = [results[BASELINE, seed][f"scenes/{task}"] for seed in seeds]
        spread = f", standard deviation over seeds {statistics.stdev(ours):.3f}" if len(ours) > 1 else ""
        images = statistics.fmean(results[name, seed]["images"] for seed in seeds)
        rows.append(
            {
                "what": f"{arm.title}: {task}",
                "ours": round(statistics.fmean(ours), 4),
                "theirs": round(statistics.fmean(theirs), 4),
                "ratio": round(statistics.fmean(ours) / (statistics.fmean(theirs) or 1), 3),
                "unit": f"share exactly right{spread}, {images:,.0f} images seen",
            }
        )
    return rows


def draw(options: argparse.Namespace) -> None:
    """A row of pictures per arm: the first prompts, then the first edits, at the same seeds."""
    from PIL import Image, ImageDraw

    side, label = 64, 250
    names = [f"{task}-{number:03d}.png" for task in ("generation", "editing") for number in range(6)]
    sheet = Image.new("RGB", (label + side * len(names), side * len(arms_of(options))), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (arm, made) in enumerate(arms_of(options).items()):
        pen.text((6, row * side + side // 2 - 6), made.title, fill="black")
        for column, name in enumerate(names):
            with Image.open(result_file(options, arm, 0).parent / name) as picture:
                sheet.paste(
                    picture.resize((side - 4, side - 4), Image.Resampling.NEAREST), (label + column * side, row * side)
                )
    options.pictures.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.pictures)


if __name__ == "__main__":
    main()
