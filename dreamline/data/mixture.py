"""Mixtures: an endless sequence of samples from several encoded sets, addressed by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dreamline.config import ConfigError, digest
from dreamline.data.batch import Batch
from dreamline.data.component import Component
from dreamline.data.features import Bucket, Features, merge
from dreamline.data.order import Indices
from dreamline.data.schedule import Schedule

ORDER_VERSION = 1  # raised when the same settings give another order
MAX_BUCKETS = 200


@dataclass(frozen=True)
class BucketUse:
    """How a bucket takes part in a mixture."""

    bucket: Bucket
    samples: tuple[int, ...]  # by component
    share: float  # of the batches
    copies: float  # how often a batch holds a sample, on average, of the component where that is most

    def __str__(self) -> str:
        size, often = f"{self.bucket.width}x{self.bucket.height}", f"one batch in {1 / self.share:.4g}"
        repeats = f", which holds each of them up to {self.copies:.3g} times" if self.copies > 1 else ""
        return f"bucket {size}: {sum(self.samples)} samples, {often}{repeats}"


class Mixture:
    """Samples in exact proportion to the weights, each set in a new order on each pass; a batch has one bucket.

    A position alone says which sample stands there (`dreamline.data.schedule`), so one number is the whole state of a
    reader, and the number of workers does not matter. The `fingerprint` names the sequence: a run resumes only on an
    equal one.

    Args:
        components: sets, their weights and perhaps filters.
        seed: of the order.
        global_batch_size: samples of a batch over all workers; only several buckets need it.

    Raises:
        ConfigError: a filter is wrong, or keeps nothing; or there are too many buckets to fill batches with.
        ValueError: no component, an empty set, weights that are not positive, sets of different models, or several
            buckets and no batch size.
    """

    def __init__(
        self,
        components: Sequence[tuple[Features, float] | tuple[Features, float, str | None]],
        seed: int,
        global_batch_size: int | None = None,
    ) -> None:
        if not components:
            raise ValueError("a mixture needs at least one encoded data set")
        self.components = [Component(item[0], item[1], item[2] if len(item) > 2 else None) for item in components]
        self.seed = seed
        self.buckets = _all_buckets(self.components)
        if len(self.buckets) > 1 and global_batch_size is None:
            raise ValueError(f"{len(self.buckets)} buckets: global_batch_size is needed, as a batch has one of them")
        self.global_batch_size = global_batch_size or 1
        self._cells = [component.cells(self.buckets, seed) for component in self.components]
        counts = [{bucket: cell.size for bucket, cell in cells.items()} for cells in self._cells]
        self.schedule = Schedule(counts, [component.weight for component in self.components], self.global_batch_size)
        self.fingerprint = digest(self._identity())

    def _identity(self) -> Mapping[str, object]:
        """What the sequence follows from; a plain mixture has the name that it had before there were filters."""
        sets = [[item.features.fingerprint, float(item.weight)] for item in self.components]
        identity: dict[str, object] = {"sets": sets, "seed": self.seed, "order": ORDER_VERSION}
        if any(item.selection is not None for item in self.components):
            identity["selections"] = [item.selection for item in self.components]
        if len(self.buckets) > 1:
            identity["global_batch_size"] = self.global_batch_size
        return identity

    def locate(self, positions: Sequence[int]) -> tuple[Indices, Indices]:
        """Component and sample number at each global position."""
        _, components, rows = self._locate(positions)
        return components, rows

    def _locate(self, positions: Sequence[int]) -> tuple[Indices, Indices, Indices]:
        buckets, components, draws = self.schedule(np.asarray(positions, dtype=np.int64))
        rows = np.empty_like(draws)
        for i in np.unique(components).tolist():
            for bucket in np.unique(buckets[components == i]).tolist():
                where = (components == i) & (buckets == bucket)
                rows[where] = self._cells[i][bucket].draw(draws[where])
        return buckets, components, rows

    def batch(self, positions: Sequence[int]) -> Batch:
        """The samples at the given global positions (>= 0), in that order; all of one bucket.

        Raises:
            ValueError: no position, or positions of global batches of different buckets.
        """
        if not len(positions):
            raise ValueError("a batch needs at least one position")
        buckets, components, rows = self._locate(positions)
        if (buckets != buckets[0]).any():
            raise ValueError(
                f"positions {min(positions)} to {max(positions)} are of several buckets; ask for those of one "
                f"global batch of {self.global_batch_size} at a time"
            )
        bucket, parts = self.buckets[buckets[0]], []
        for i in np.unique(components):
            places = np.flatnonzero(components == i)
            parts.append((places, self.components[i].features.read(rows[places])))
        found = merge(parts, len(rows))
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
            time_ids=torch.tensor([bucket[:2]], dtype=torch.float32).repeat(len(rows), 1),
        )

    def uses(self) -> list[BucketUse]:
        """How each bucket takes part, the rarest first."""
        uses = []
        for number, bucket in enumerate(self.buckets):
            samples = tuple(cells[number].size if number in cells else 0 for cells in self._cells)
            drawn = [float(share) * self.global_batch_size for share in self.schedule.mix[number]]
            copies = max(share / size for share, size in zip(drawn, samples, strict=True) if size)
            uses.append(BucketUse(bucket, samples, float(self.schedule.share(number)), copies))
        return sorted(uses, key=lambda use: (use.share, use.bucket))

    def small_buckets(self) -> list[BucketUse]:
        """Buckets that cannot fill a batch with different samples. They still come, as often per sample as others."""
        return [use for use in self.uses() if use.copies > 1] if len(self.buckets) > 1 else []


def _all_buckets(components: Sequence[Component]) -> list[Bucket]:
    """Buckets that occur, sorted.

    Raises:
        ConfigError: too many to fill batches with.
        ValueError: pictures of one size have different latents, or texts different widths.
    """
    widths = {component.features.text_dim for component in components}
    if len(widths) > 1:
        raise ValueError(f"encoded by different models, text widths differ: {sorted(widths)}")
    buckets = sorted({bucket for component in components for bucket in component.buckets()})
    if len(buckets) > MAX_BUCKETS:
        raise ConfigError(
            f"the samples have {len(buckets)} different shapes, more than {MAX_BUCKETS}, and a batch has one; encode "
            "them with buckets to scale and crop into (fit), or build the data set with image.buckets"
        )
    if len({bucket[:2] for bucket in buckets}) < len(buckets) or len({bucket[2][0] for bucket in buckets}) > 1:
        raise ValueError(f"encoded by different models, latents of pictures of one size differ: {buckets}")
    return buckets
