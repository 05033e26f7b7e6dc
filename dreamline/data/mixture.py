"""Mixtures: an endless sequence of samples from several encoded sets, addressed by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dreamline.config import digest
from dreamline.data.batch import Batch
from dreamline.data.features import FeatureSet
from dreamline.data.order import Indices, Interleave, shuffled

ORDER_VERSION = 1  # raised when the same settings give another order


class Mixture:
    """Samples in exact proportion to the weights, each set in a new order on each pass.

    A position alone says which sample stands there, so one number is the whole state of a reader, and the number of
    workers does not matter. The `fingerprint` names the sequence: a run resumes only on an equal one.

    Raises:
        ValueError: no component, an empty set, weights that are not positive, or latents or texts of different shape.
    """

    def __init__(self, components: Sequence[tuple[FeatureSet, float]], seed: int) -> None:
        if not components:
            raise ValueError("a mixture needs at least one encoded data set")
        self.sets = [features for features, _ in components]
        self.seed = seed
        self._interleave = Interleave([weight for _, weight in components])
        for features in self.sets:
            if not len(features):
                raise ValueError(f"{features.folder}: holds no samples; leave it out of the mixture")
        shapes = {(features.info.latent_shape, features.info.text_dim) for features in self.sets}
        if len(shapes) > 1:
            raise ValueError(f"encoded by different models, latent shapes and text widths differ: {sorted(shapes)}")
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
            rows[chosen] = shuffled(ordinals[chosen], len(features), features.fingerprint, self.seed)
        return components, rows

    def batch(self, positions: Sequence[int]) -> Batch:
        """The samples at the given global positions (>= 0), in that order."""
        if not len(positions):
            raise ValueError("a batch needs at least one position")
        components, rows = self.locate(positions)
        size = len(rows)
        latents = torch.empty(size, *self.sets[0].info.latent_shape)
        source_latents = torch.zeros_like(latents)
        is_edit = torch.zeros(size, dtype=torch.bool)
        time_ids = torch.empty(size, 2)
        texts, nulls = [], []
        for i in np.unique(components):
            features = self.sets[i]
            places = torch.from_numpy(np.flatnonzero(components == i))
            chosen = torch.from_numpy(rows[components == i])
            latents[places] = features.latents[chosen]
            if features.source_latents is not None:
                source_latents[places] = features.source_latents[chosen]
            is_edit[places] = features.kind == "edit"
            time_ids[places] = torch.tensor(features.resolution, dtype=torch.float32)
            texts.append((places, *features.text(chosen)))
            nulls.append((places, *features.null_text(chosen)))
        text, text_mask = _merge(texts, size)
        null_text, null_mask = _merge(nulls, size)
        located = list(zip(components.tolist(), rows.tolist(), strict=True))
        return Batch(
            keys=[self.sets[i].keys[row] for i, row in located],
            prompts=[self.sets[i].prompts[row] for i, row in located],
            index=torch.tensor(positions, dtype=torch.int64),
            latents=latents,
            source_latents=source_latents,
            is_edit=is_edit,
            text=text,
            text_mask=text_mask,
            null_text=null_text,
            null_mask=null_mask,
            time_ids=time_ids,
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
