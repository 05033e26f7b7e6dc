"""Encoding one shard, the unit of work: what comes out depends on the shard, the encoders and the settings alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from data_prep.features import is_encoded, shard_entry, table_of, write_features
from data_prep.manifest import sweep
from dreamline.cluster import map_tasks
from dreamline.data.encoded import FeatureShard, read_features_info
from dreamline.data.index import SampleIndex, Shard, open_index
from dreamline.data.manifest import DATASET
from dreamline.data.order import Indices
from dreamline.data.sample import Kind
from dreamline.data.shard_cache import CacheConfig
from dreamline.data.shards import ShardReader
from dreamline.encoding.encoders import Encoders, Size
from dreamline.encoding.placement import edits, place
from dreamline.encoding.settings import EncodeSettings


@dataclass(frozen=True)
class Target:
    """Where a data set's encoded samples go, and how they are made."""

    folder: str
    frozen: str
    plan: str  # digest of what was asked for; files of another plan are made again
    settings: EncodeSettings
    threads: int = 1


@dataclass(frozen=True)
class EncodeTask:
    """Samples of one shard that are of one kind and size, to be encoded into one file."""

    dataset: str
    rows: Indices
    kind: Kind
    size: Size
    stem: str
    target: Target

    @property
    def folder(self) -> Path:
        """Where the file goes."""
        return Path(self.target.folder)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"{self.stem}.safetensors"

    def is_done(self, verify: bool = True) -> bool:
        """Whether an earlier attempt has finished it; `verify` reads all of it."""
        return is_encoded(self.folder, self.stem, self.target.plan, verify)

    def entry(self) -> FeatureShard:
        """What dataset.json says of the finished file."""
        return shard_entry(self.folder, self.stem, self.kind, self.size)


def plan_tasks(index: SampleIndex, target: Target, stem: Callable[[Shard], str]) -> list[EncodeTask]:
    """One task per shard, kind and size that has samples, in the order of the shards.

    Args:
        stem: name of a shard's encoded file; where a shard has several kinds or sizes, they are added to it.

    Raises:
        ConfigError: pictures fit no size; see `placement.place`.
    """
    sizes, bucket = place(index, target.settings, pixel_factor(target.frozen))
    group = bucket * 2 + edits(index)
    tasks = []
    for number, shard in enumerate(index.shards):
        rows = np.arange(index.first_rows[number], index.first_rows[number + 1])
        found = np.unique(group[rows])
        for one in found.tolist():
            kind: Kind = "edit" if one % 2 else "t2i"
            size = sizes[one // 2]
            name = stem(shard) if len(found) == 1 else f"{stem(shard)}-{kind}-{size[0]}x{size[1]}"
            tasks.append(EncodeTask(index.folder, rows[group[rows] == one], kind, size, name, target))
    return tasks


def prepare(tasks: Sequence[EncodeTask]) -> None:
    """Make the folders, and remove what killed attempts left behind. Nobody else may be writing."""
    for folder in {task.folder for task in tasks}:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)


def finished(tasks: Sequence[EncodeTask]) -> dict[Path, FeatureShard]:
    """What earlier attempts have finished, by path, unless it has changed since it was listed in dataset.json."""
    listed: dict[Path, FeatureShard] = {}
    for folder in {task.folder for task in tasks}:
        if (folder / DATASET).is_file():
            listed |= {folder / entry.name: entry for entry in read_features_info(folder).shards}
    found = {task.path: task.entry() for task in tasks if task.is_done()}
    return {path: entry for path, entry in found.items() if listed.get(path, entry) == entry}


def encode_tasks(
    tasks: Sequence[EncodeTask], workers: int, threads: int, done: Callable[[Path, FeatureShard], None]
) -> None:
    """Encode files, `workers` at a time. `done` is called as they are finished."""
    map_tasks(encode_task, tasks, workers, lambda _, found: done(*found), threads)


def encode_task(task: EncodeTask) -> tuple[Path, FeatureShard]:
    """Encode and publish one file, in batches that depend on its samples alone.

    Returns:
        Its path, and what dataset.json says of it.
    """
    torch.set_num_threads(task.target.threads)
    encoders = load_encoders(task.target.frozen)
    index, reader = open_reader(task.dataset)
    encoded = encoders.encode(reader.read(task.rows), task.size, task.target.settings.batch_size)
    table = table_of(encoded, index, task.rows)
    write_features(encoded, table, task.folder, task.stem, task.target.plan, task.target.settings)
    return task.path, task.entry()


def text_dim(frozen: str) -> int:
    """Width of the text encoder's states."""
    config = json.loads((Path(frozen) / "text_encoder" / "config.json").read_text())
    return int(config["text_config"]["hidden_size"])


def pixel_factor(frozen: str) -> int:
    """Pixels per latent, on a side."""
    config = json.loads((Path(frozen) / "vae" / "config.json").read_text())
    return int(2 ** (len(config["encoder_block_out_channels"]) - 1))


@lru_cache(maxsize=1)
def load_encoders(folder: str) -> Encoders:
    """The frozen networks, on a GPU where there is one."""
    return Encoders.load(folder, "cuda" if torch.cuda.is_available() else "cpu")


@lru_cache(maxsize=2)
def open_reader(folder: str) -> tuple[SampleIndex, ShardReader]:
    """A data set and its reader."""
    index = open_index(folder)
    return index, ShardReader(index, CacheConfig())
