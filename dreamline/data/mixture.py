"""Mixtures: an endless sequence of samples from several encoded sets, addressed by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dreamline.config import digest
from dreamline.data.batch import Batch
from dreamline.data.features import Features, merge
from dreamline.data.order import Indices, Interleave, shuffled

ORDER_VERSION = 1  # raised when the same settings give another order


class Mixture:
    """Samples in exact proportion to the weights, each set in a new order on each pass.

    A position alone says which sample stands there, so one number is the whole state of a reader, and the number of
    workers does not matter. The `fingerprint` names the sequence: a run resumes only on an equal one.

    Raises:
        ValueError: no component, an empty set, weights that are not positive, or latents or texts of different shape.
    """

    def __init__(self, components: Sequence[tuple[Features, float]], seed: int) -> None:
        if not components:
            raise ValueError("a mixture needs at least one encoded data set")
        self.sets = [features for features, _ in components]
        self.seed = seed
        self._interleave = Interleave([weight for _, weight in components])
        for features in self.sets:
            if not len(features):
                raise ValueError(f"{features.name}: holds no samples; leave it out of the mixture")
        widths = {features.text_dim for features in self.sets}
        if len(widths) > 1:
            raise ValueError(f"encoded by different models, text widths differ: {sorted(widths)}")
        buckets = {bucket for features in self.sets for bucket in features.buckets}
        if len(buckets) > 1:
            raise ValueError(f"the samples are of different shapes: {sorted(buckets)}")
        (self.bucket,) = buckets
        self.fingerprint = digest(
            {
                "sets": [[features.fingerprint, float(weight)] for features, weight in components],
                "seed": seed,
                "order": ORDER_VERSION,
            }
        )

    def locate(self, positions: Sequence[int]) -> tuple[Indices, Indices]:
        """Component and sample number at each global position."""
        where = np.asarray(positions, dtype=np.int64)
        components, ordinals = self._interleave(where)
        rows = np.empty_like(where)
        for i, features in enumerate(self.sets):
            chosen = components == i
            rows[chosen] = shuffled(ordinals[chosen], len(features), features.order_key, self.seed)
        return components, rows

    def batch(self, positions: Sequence[int]) -> Batch:
        """The samples at the given global positions (>= 0), in that order."""
        if not len(positions):
            raise ValueError("a batch needs at least one position")
        components, rows = self.locate(positions)
        size = len(rows)
        parts = []
        for i in np.unique(components):
            places = np.flatnonzero(components == i)
            parts.append((places, self.sets[i].read(rows[places])))
        found = merge(parts, size)
        return Batch(
            keys=found.keys,
            prompts=found.prompts,
            index=torch.tensor(positions, dtype=torch.int64),
            latents=found.latents,
            source_latents=found.source_latents,
            is_edit=found.is_edit,
            text=found.text,
            text_mask=found.text_mask,
            null_text=found.null_text,
            null_mask=found.null_mask,
            time_ids=torch.tensor([[self.bucket.width, self.bucket.height]], dtype=torch.float32).repeat(size, 1),
        )
