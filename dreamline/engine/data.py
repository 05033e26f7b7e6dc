"""The training data of a job, on the worker's device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from dreamline.config import Job
from dreamline.data.batch import Batch
from dreamline.data.mixture import Mixture
from dreamline.encoding.sources import open_features
from dreamline.engine.config import MixedStage
from dreamline.engine.world import World
from dreamline.storage import write_json

MIXTURE = "mixture.json"


class StageData:
    """A mixture of the job's encoded inputs; batches arrive on the worker's device.

    The first worker writes RUN/mixture.json: the share of each component and bucket, and what was filtered out. It
    prints the buckets that cannot fill a batch.

    Attributes:
        identity: what must be equal for a run to go on with this data; plain values by name.
        resolution: (width, height) in px of the bucket that is nearest to a square.
    """

    def __init__(self, job: Job, stage: MixedStage, world: World) -> None:
        self.names = list(stage.mixture)
        parts = [
            (open_features(job, name, world.device), component.weight, component.filter)
            for name, component in stage.mixture.items()
        ]
        self.mixture = Mixture(parts, stage.seed, stage.global_batch_size)
        self.device = world.device
        bucket = min(self.mixture.buckets, key=lambda bucket: abs(math.log(bucket.width / bucket.height)))
        self.resolution = (bucket.width, bucket.height)
        self.identity = self._identity()
        if world.first:
            write_json(Path(job.run_dir) / MIXTURE, self.report())
            for use in self.mixture.small_buckets():
                print(f"{use}: fewer than a batch needs; filter them out or add more", flush=True)

    def batch(self, positions: range) -> Batch:
        """Samples at global positions, which are of one global batch."""
        return self.mixture.batch(positions).to(self.device)

    def report(self) -> dict[str, object]:
        """How components and buckets take part: plain values."""
        schedule, size = self.mixture.schedule, self.mixture.global_batch_size
        components = {
            name: {
                "weight": component.weight,
                "filter": component.filter,
                "samples": len(component),
                "filtered_out": len(component.features) - len(component),
                "share_exact_to_samples": math.ceil(schedule.error(number)),
            }
            for number, (name, component) in enumerate(zip(self.names, self.mixture.components, strict=True))
        }
        small = self.mixture.small_buckets()
        buckets = [
            {
                "bucket": f"{use.bucket.width}x{use.bucket.height}",
                "samples": dict(zip(self.names, use.samples, strict=True)),
                "share_of_batches": use.share,
                "copies_in_a_batch": use.copies,
                "small": use in small,
            }
            for use in self.mixture.uses()
        ]
        return {
            "fingerprint": self.mixture.fingerprint,
            "global_batch_size": size,
            "components": components,
            "buckets": buckets,
        }

    def _identity(self) -> Mapping[str, str | int]:
        identity: dict[str, str | int] = {
            "data": self.mixture.fingerprint,
            "seed": self.mixture.seed,
            "global_batch_size": self.mixture.global_batch_size,
        }
        for name, component in zip(self.names, self.mixture.components, strict=True):
            kept = "" if component.filter is None else f", filter {component.filter!r} (rows {component.selection})"
            identity[f"mixture.{name}"] = f"weight {component.weight}{kept}"
            identity[f"fingerprint of {name}"] = component.features.fingerprint
        return identity
