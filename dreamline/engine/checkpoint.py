"""Resumable state of a run: RUN/state/step-<n>/, complete when its `state.json` is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from dreamline.engine.ema import EMA
from dreamline.engine.objective import Objective
from dreamline.engine.trainable import Trainable
from dreamline.engine.world import World
from dreamline.storage import publish_folder, write_json

Identity = Mapping[str, str | int]  # what must be equal for a state to be resumed

MARKER = "state.json"
KEEP = 2


@dataclass
class TrainState:
    """Where a run stands. `samples_seen` is the whole state of the data."""

    step: int = 0
    samples_seen: int = 0


def latest(run_dir: Path) -> Path | None:
    """Newest complete state of a run."""
    complete = sorted(path.parent for path in (run_dir / "state").glob(f"step-*/{MARKER}"))
    return complete[-1] if complete else None


def save(
    run_dir: Path,
    state: TrainState,
    trainables: Mapping[str, Trainable],
    emas: Mapping[str, EMA],
    objective: Objective,
    identity: Identity,
    world: World,
) -> Path:
    """Write the state of this step from every worker; the marker comes last. Only the newest ones are kept.

    `identity` (data fingerprint, world size, ...) must be equal when the state is loaded.
    """
    folder = run_dir / "state" / f"step-{state.step:08d}"
    partial = folder.with_name(f".{folder.name}.tmp")
    if world.first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    world.barrier()
    for name, trainable in trainables.items():
        trainable.save(partial / name)
    torch.save(objective.state_dict(), partial / f"objective-{world.rank}.pt")
    if world.first:
        torch.save({name: ema.state_dict() for name, ema in emas.items()}, partial / "ema.pt")
    world.barrier()
    if world.first:
        write_json(partial / MARKER, {"state": asdict(state), "identity": dict(identity)})
        with publish_folder(folder) as empty:
            for item in partial.iterdir():
                item.rename(empty / item.name)
        partial.rmdir()
        for old in sorted((run_dir / "state").glob("step-*"))[:-KEEP]:
            shutil.rmtree(old)
    world.barrier()
    return folder


def load(
    folder: Path,
    trainables: Mapping[str, Trainable],
    emas: Mapping[str, EMA],
    objective: Objective,
    identity: Identity,
    world: World,
) -> TrainState:
    """Restore what `save` wrote.

    Raises:
        ValueError: the state belongs to other data or another number of workers.
    """
    marker = json.loads((folder / MARKER).read_text())
    before: Identity = marker["identity"]
    if any(before[key] != identity[key] for key in before.keys() & identity.keys()):
        names = [key for key in {**identity, **before} if before.get(key) != identity.get(key)]
        told = "; ".join(f"{key} was {before.get(key, 'absent')}, is {identity.get(key, 'absent')}" for key in names)
        raise ValueError(f"{folder}: cannot resume: {told}. Use the former settings, or delete the run's folder")
    for name, trainable in trainables.items():
        trainable.load(folder / name)
    objective.load_state_dict(torch.load(folder / f"objective-{world.rank}.pt", weights_only=True))
    if emas:
        averaged = torch.load(folder / "ema.pt", weights_only=True, map_location=world.device)
        for name, ema in emas.items():
            ema.load_state_dict(averaged[name])
    return TrainState(**marker["state"])
