"""The training data of a job, on the worker's device."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from dreamline.config import ConfigError, Job
from dreamline.data.batch import Batch
from dreamline.data.mixture import Mixture
from dreamline.encoding.sources import open_features


class StageData:
    """A mixture of the job's encoded inputs; batches arrive on `device`."""

    def __init__(self, job: Job, weights: Mapping[str, float], seed: int, device: torch.device) -> None:
        if not weights:
            raise ConfigError("stage.mixture is empty; name at least one input data set, such as `t2i: 1`")
        sets = [open_features(job, name, device) for name in weights]
        self.mixture = Mixture(list(zip(sets, weights.values(), strict=True)), seed)
        self.resolution = (self.mixture.bucket.width, self.mixture.bucket.height)
        self.fingerprint = self.mixture.fingerprint
        self.device = device

    def batch(self, positions: range) -> Batch:
        """Samples at global positions."""
        return self.mixture.batch(positions).to(self.device)
