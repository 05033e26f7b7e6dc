"""Encoding any data set into a folder that is usable at any time: what is missing is encoded when it is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.build.progress import Step
from data_prep.config import EncodeRequest
from data_prep.encoding import EncodeTask, Target, encode_tasks, finished, plan_tasks, prepare, text_dim
from data_prep.features import publish_features
from dreamline.config import ConfigError, digest
from dreamline.data.encoded import FeatureShard, FeaturesInfo, read_features_info
from dreamline.data.index import SampleIndex, Shard, open_index
from dreamline.data.manifest import DATASET
from dreamline.encoding.on_the_fly import full_key
from dreamline.encoding.settings import check_key
from dreamline.storage import is_remote

PUBLISH_EVERY = 30.0  # s between two versions of dataset.json


class Encoding:
    """A data set to be encoded, and the folder it goes to.

    Raises:
        ConfigError: no data set, no encoders, no output for a remote data set, or the folder holds other features.
    """

    def __init__(self, request: EncodeRequest) -> None:
        self.request = request
        data = request.data if is_remote(request.data) else str(Path(request.data).resolve())
        self.index: SampleIndex = open_index(data)
        if not len(self.index):
            raise ConfigError(f"{self.index.folder}: holds no samples; see its rejects for the reasons")
        self.frozen = str(Path(request.encoders).resolve())  # workers may run elsewhere
        self.key: dict[str, Any] = full_key(self.index, self.frozen, request.settings)
        self.folder = self._folder()
        if (self.folder / DATASET).is_file():
            check_key(read_features_info(self.folder).key, self.key, str(self.folder))
        target = Target(str(self.folder), self.frozen, digest(self.key), request.settings, request.num_threads)
        self.tasks = plan_tasks(self.index, target, _stem)

    def run(self, say: Callable[[Step], None]) -> dict[str, Any]:
        """Encode what is missing, up to the limit.

        Returns:
            What there is now.
        """
        started = published = time.monotonic()
        prepare(self.tasks)
        found = finished(self.tasks)
        before = done = sum(entry.samples for entry in found.values())
        self._publish(found)

        def follow(path: Path, entry: FeatureShard) -> None:
            nonlocal done, published
            found[path] = entry
            done += entry.samples
            say(Step(f"encoded {done} of {len(self.index)} samples", done, len(self.index), "samples"))
            if time.monotonic() - published > PUBLISH_EVERY:
                self._publish(found)
                published = time.monotonic()

        try:
            encode_tasks(self._wanted(found), self.request.num_workers, self.request.num_threads, follow)
        finally:  # also where it was interrupted: what is there can be used
            info = self._publish(found)
        return {
            "output": str(self.folder),
            "samples": info.num_samples,
            "of": info.num_rows,
            "encoded_now": done - before,
            "complete": info.complete,
            "bytes": sum(shard.size for shard in info.shards),
            "seconds": round(time.monotonic() - started, 1),
            "key": digest(self.key),
        }

    def _wanted(self, found: Mapping[Path, FeatureShard]) -> list[EncodeTask]:
        """What is missing; with a limit the first of it, until that many samples are encoded."""
        missing = [task for task in self.tasks if task.path not in found]
        if self.request.limit is None:
            return missing
        left = self.request.limit - sum(entry.samples for entry in found.values())
        starts = np.cumsum([0, *(len(task.rows) for task in missing)])[:-1]
        return [task for task, start in zip(missing, starts, strict=True) if start < left]

    def _publish(self, found: Mapping[Path, FeatureShard]) -> FeaturesInfo:
        """List what is finished; named by the key of the values and not by bytes, as it may grow."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return publish_features(
            self.folder,
            [found[task.path] for task in self.tasks if task.path in found],
            name=self.index.name,
            num_rows=len(self.index),
            plan=digest(self.key),
            text_dim=text_dim(self.frozen),
            parents={"data": self.index.fingerprint},
            key=self.key,
            settings=self.request.settings,
            names=(digest(self.key), self.index.fingerprint),
        )

    def _folder(self) -> Path:
        output, data = self.request.output, self.index.folder
        if is_remote(output):
            raise ConfigError(f"--output {output}: encoded samples are mapped into memory; give a local folder")
        if not output and is_remote(data):
            raise ConfigError(f"{data}: is not local; say where the encoded samples go (--output FOLDER)")
        return Path(output).resolve() if output else Path(f"{data}-features-{digest(self.key)}")


def _stem(shard: Shard) -> str:
    """The shard's name, with its content hash where it has one."""
    return shard.name.removesuffix(".tar")
