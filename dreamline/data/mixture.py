"""Mixtures: an endless sequence of samples from several encoded sets, addressed by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dreamline.config import digest
from dreamline.data.batch import Batch
from dreamline.data.features import Features
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
        keys, prompts = [""] * size, [""] * size
        is_edit = torch.zeros(size, dtype=torch.bool)
        latents = torch.empty(size, *self.bucket.latent_shape)
        source_latents = torch.empty_like(latents)
        texts, nulls = [], []
        for i in np.unique(components):
            where = np.flatnonzero(components == i)
            found = self.sets[i].read(rows[where])
            places = torch.from_numpy(where)
            for place, key, prompt in zip(where, found.keys, found.prompts, strict=True):
                keys[place], prompts[place] = key, prompt
            is_edit[places] = found.is_edit
            latents[places] = found.latents
            source_latents[places] = found.source_latents
            texts.append((places, found.text, found.text_mask))
            nulls.append((places, found.null_text, found.null_mask))
        text, text_mask = _merge(texts, size)
        null_text, null_mask = _merge(nulls, size)
        return Batch(
            keys=keys,
            prompts=prompts,
            index=torch.tensor(positions, dtype=torch.int64),
            latents=latents,
            source_latents=source_latents,
            is_edit=is_edit,
            text=text,
            text_mask=text_mask,
            null_text=null_text,
            null_mask=null_mask,
            time_ids=torch.tensor([[self.bucket.width, self.bucket.height]], dtype=torch.float32).repeat(size, 1),
        )


def _merge(parts: Sequence[tuple[Tensor, Tensor, Tensor]], size: int) -> tuple[Tensor, Tensor]:
    """Put (places, text, mask) of several sets into one batch, padded with zeros to the longest."""
    length = max(text.shape[1] for _, text, _ in parts)
    merged = torch.zeros(size, length, parts[0][1].shape[2])
    mask = torch.zeros(size, length, dtype=torch.int64)
    for places, text, text_mask in parts:
        merged[places, : text.shape[1]] = text
        mask[places, : text.shape[1]] = text_mask
    return merged, mask
