"""Training steps per CPU-second: samples from the encode cache (ours) against samples encoded on the fly (theirs).

    python benchmarks/encode_cache.py --json benchmarks/results/encode_cache.json      (--quick: fewer, smaller steps)

The demo's network and stages, its scene world and encoders, one thread. Both ways train the same network on the same
samples in the real loop, step by step in turns, so that both meet the same weather; the fastest step of each counts.
The benchmark stops unless the losses of both agree. Rows `data alone` are the batches without the training.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from runs import write_record

from data_prep.config import DataJob, DataStage, EncodeRequest
from data_prep.encode_run import Encoding
from data_prep.run import run as draw
from dreamline.config import read_yaml
from dreamline.data.batch import Batch
from dreamline.data.features import Features, FeatureSet
from dreamline.data.mixture import Mixture
from dreamline.encoding.on_the_fly import OnTheFly
from dreamline.encoding.settings import EncodeSettings
from dreamline.engine.checkpoint import TrainState
from dreamline.engine.loop import fit
from dreamline.engine.trainable import LocalTrainable
from dreamline.engine.world import World
from dreamline.model.unet import build_for
from training.config import TrainStage
from training.objective import FlowMatching

ROOT = Path(__file__).parents[1]
ENCODERS = ROOT / "assets" / "encoders"
CASES = {"t2i": {"t2i": 1.0}, "edit": {"edit": 1.0}, "joint": {"t2i": 1.0, "edit": 1.0}}
TOLERANCE = 1e-4  # relative, of losses: both encode in float32


@dataclass
class Way:
    """One way to feed the training of one stage."""

    mixture: Mixture
    stage: TrainStage
    size: tuple[int, int]  # of pictures, px
    losses: list[float] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)  # CPU time of each step
    data_s: list[float] = field(default_factory=list)  # of it, that of its batches

    def __post_init__(self) -> None:
        self.fingerprint = self.mixture.fingerprint
        torch.manual_seed(self.stage.seed)
        unet = build_for(self.stage.model, ENCODERS, self.size, self.stage.seed)
        self.objective = FlowMatching(unet, self.stage)
        self.trainable = LocalTrainable(unet, self.stage.optim, self.stage.accumulation(1))
        self.state = TrainState()

    def batch(self, positions: range) -> Batch:
        """Samples at global positions."""
        start = time.process_time()
        found = self.mixture.batch(positions)
        self.data_s[-1] += time.process_time() - start
        return found

    def step(self) -> None:
        """One optimiser step."""
        self.data_s.append(0.0)
        until = self.stage.model_copy(update={"steps": self.state.step + 1})
        start = time.process_time()
        fit(until, self.objective, {"student": self.trainable}, {}, self, self.state, World(), 1, [self._note])
        self.step_s.append(time.process_time() - start)

    def _note(self, _: TrainState, metrics: dict[str, float] | None) -> None:
        assert metrics is not None
        self.losses.append(metrics["loss"])


def prepare(folder: Path, num: int) -> tuple[dict[str, Features], dict[str, Features]]:
    """A scene data set of each kind, encoded and to be encoded."""
    world = read_yaml(ROOT / "conf" / "demo" / "data.yaml")["stage"]
    stage = DataStage.model_validate({**world, "num_t2i": num, "num_edit": num, "shard_size": num // 4})
    draw(DataJob(preset="benchmark", run_dir=str(folder), stage=stage))
    settings = EncodeSettings()
    cached: dict[str, Features] = {}
    for kind in ("t2i", "edit"):
        output = str(folder / f"{kind}-features")
        Encoding(EncodeRequest(data=str(folder / kind), output=output, encoders=str(ENCODERS), settings=settings)).run(
            lambda _: None
        )
        cached[kind] = FeatureSet(output)
    return cached, {kind: OnTheFly(folder / kind, ENCODERS, settings=settings) for kind in cached}


def compare(
    case: str, cached: dict[str, Features], made: dict[str, Features], rounds: int, micro: int
) -> list[dict[str, object]]:
    """Rows of one stage."""
    values = read_yaml(ROOT / "conf" / "demo" / f"{case}.yaml")["stage"]
    values |= {"micro_batch_size": micro, "global_batch_size": micro, "mixture": CASES[case]}
    stage = TrainStage.model_validate(values)
    ways = {}
    for name, sets in (("ours", cached), ("theirs", made)):
        mixture = Mixture([(sets[kind], weight) for kind, weight in CASES[case].items()], stage.seed)
        ways[name] = Way(mixture, stage, sets["t2i"].buckets[0][:2])
    for _ in range(rounds + 1):  # the first one warms up
        for way in ways.values():
            way.step()
    ours, theirs = ways["ours"], ways["theirs"]
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=TOLERANCE, err_msg=f"{case}: other losses on the fly")
    rows = []
    for what, speed in (
        (f"{case}: training step", lambda way: micro / min(way.step_s[1:])),
        (f"{case}: data alone", lambda way: micro / min(way.data_s[1:])),
    ):
        a, b = speed(ours), speed(theirs)
        row = {"what": what, "ours": round(a, 2), "theirs": round(b, 2), "ratio": round(a / b, 2)}
        rows.append({**row, "unit": "samples per CPU-second"})
    share = min(ours.data_s[1:]) / min(ours.step_s[1:])
    print(f"{case}: data {share:.2%} of the step from the cache, losses {ours.losses[-1]:.6f} {theirs.losses[-1]:.6f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller steps")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds, micro = (2, 16) if arguments.quick else (5, 64)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cached, made = prepare(Path(folder), 64 if arguments.quick else 512)
        for case in CASES:
            rows += compare(case, cached, made, rounds, micro)
    for row in rows:
        print(f"{row['what']:<24}{row['ours']:>10}{row['theirs']:>10}{row['ratio']:>8}x  {row['unit']}")
    write_record(arguments.json, "encode_cache", rows)


if __name__ == "__main__":
    main()
