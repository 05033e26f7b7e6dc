"""Mixtures: an endless sequence of samples from several encoded sets, addressed by position."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dreamline.config import ConfigError, digest
from dreamline.data.batch import Batch
from dreamline.data.features import Bucket, Features
from dreamline.data.order import Indices, shuffled
from dreamline.data.schedule import Schedule
from dreamline.data.selection import select_rows

ORDER_VERSION = 1  # raised when the same settings give another order


class Component(NamedTuple):
    """One data set of a mixture."""

    features: Features
    weight: float
    filter: str | None = None  # an expression over its columns; all samples without one


@dataclass(frozen=True)
class _Cell:
    """The samples of a component in one bucket."""

    size: int
    order_key: str
    rows: npt.NDArray[np.integer] | None  # which ones of the set; None: all of them

    def draw(self, draws: Indices, seed: int) -> Indices:
        """Row of each draw: every `size` draws hold each sample once, in another order each time."""
        places = shuffled(draws, self.size, self.order_key, seed)
        return places if self.rows is None else self.rows[places].astype(np.int64)


@dataclass(frozen=True)
class BucketUse:
    """How a bucket takes part in a mixture."""

    bucket: Bucket
    samples: tuple[int, ...]  # by component
    share: float  # of the batches
    copies: float  # times that one of its batches holds a sample on average, of the component where that is most

    def __str__(self) -> str:
        often = f"every {1 / self.share:.1f} batches" if self.share < 1 else "always"
        repeats = f"; a batch holds each up to {self.copies:.1f} times" if self.copies > 1 else ""
        return f"{self.bucket.width}x{self.bucket.height}: {sum(self.samples)} samples, {often}{repeats}"


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
        ConfigError: a filter is wrong, or keeps nothing.
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
        self.components = [Component(*component) for component in components]
        self.seed = seed
        selections = [_select(component) for component in self.components]
        present = [
            _buckets(component.features, rows) for component, rows in zip(self.components, selections, strict=True)
        ]
        self.buckets = _shared_buckets([component.features for component in self.components], present)
        if len(self.buckets) > 1 and global_batch_size is None:
            raise ValueError(f"{len(self.buckets)} buckets: global_batch_size is needed, a batch has one of them")
        self.global_batch_size = global_batch_size or 1
        self._cells = [
            self._split(component, rows) for component, rows in zip(self.components, selections, strict=True)
        ]
        counts = [{bucket: cell.size for bucket, cell in cells.items()} for cells in self._cells]
        self.schedule = Schedule(counts, [component.weight for component in self.components], self.global_batch_size)
        self.selections = [None if rows is None else _digest_rows(rows) for rows in selections]
        self.fingerprint = digest(self._identity())

    def _identity(self) -> dict[str, object]:
        """What the sequence follows from. The two last keys are new, so a plain mixture keeps the name it always had."""
        sets: list[list[object]] = [[item.features.fingerprint, float(item.weight)] for item in self.components]
        identity: dict[str, object] = {"sets": sets, "seed": self.seed, "order": ORDER_VERSION}
        if any(selection is not None for selection in self.selections):
            identity["selections"] = self.selections
        if len(self.buckets) > 1:
            identity["global_batch_size"] = self.global_batch_size
        return identity

    def _split(self, component: Component, rows: Indices | None) -> dict[int, _Cell]:
        """Cells of a component, by number of the bucket."""
        features = component.features
        numbers = np.array(
            [self.buckets.index(bucket) if bucket in self.buckets else -1 for bucket in features.buckets]
        )
        of_rows = numbers[features.bucket if rows is None else features.bucket[rows]]
        if len(self.buckets) == 1:
            return {0: _Cell(len(of_rows), features.order_key, None if rows is None else _compact(rows))}
        cells = {}
        for number in np.unique(of_rows).tolist():
            bucket, places = self.buckets[number], np.flatnonzero(of_rows == number)
            key = f"{features.order_key}:{bucket.width}x{bucket.height}"
            cells[number] = _Cell(len(places), key, _compact(places if rows is None else rows[places]))
        return cells

    def locate(self, positions: Sequence[int]) -> tuple[Indices, Indices]:
        """Component and sample number at each global position."""
        _, components, rows = self._locate(positions)
        return components, rows

    def _locate(self, positions: Sequence[int]) -> tuple[Indices, Indices, Indices]:
        buckets, components, draws = self.schedule(np.asarray(positions, dtype=np.int64))
        rows = np.empty_like(draws)
        for i, cells in enumerate(self._cells):
            for number, cell in cells.items():
                chosen = (components == i) & (buckets == number)
                if chosen.any():
                    rows[chosen] = cell.draw(draws[chosen], self.seed)
        return buckets, components, rows

    def batch(self, positions: Sequence[int]) -> Batch:
        """The samples at global positions, all of one bucket.

        Raises:
            ValueError: no position, or positions of global batches of different buckets.
        """
        if not len(positions):
            raise ValueError("a batch needs at least one position")
        buckets, components, rows = self._locate(positions)
        if len(np.unique(buckets)) > 1:
            raise ValueError(
                f"positions {min(positions)} to {max(positions)} are of several buckets; ask for those of one "
                f"global batch of {self.global_batch_size} at a time"
            )
        bucket, size = self.buckets[buckets[0]], len(rows)
        keys, prompts = [""] * size, [""] * size
        is_edit = torch.zeros(size, dtype=torch.bool)
        latents = torch.empty(size, *bucket.latent_shape)
        source_latents = torch.empty_like(latents)
        texts, nulls = [], []
        for i in np.unique(components):
            where = np.flatnonzero(components == i)
            found = self.components[i].features.read(rows[where])
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
            time_ids=torch.tensor([[bucket.width, bucket.height]], dtype=torch.float32).repeat(size, 1),
        )

    def uses(self) -> list[BucketUse]:
        """How each bucket takes part, the rarest first."""
        uses = []
        for number, bucket in enumerate(self.buckets):
            samples = tuple(cells[number].size if number in cells else 0 for cells in self._cells)
            drawn = [float(share) * self.global_batch_size for share in self.schedule.mix[number]]
            copies = max(share / size for share, size in zip(drawn, samples, strict=True) if size)
            uses.append(BucketUse(bucket, samples, float(self.schedule.share(number)), copies))
        return sorted(uses, key=lambda use: use.share)

    def small_buckets(self) -> list[BucketUse]:
        """Buckets that cannot fill a batch with different samples. They still come, as often per sample as others."""
        several = len(self.buckets) > 1
        return [use for use in self.uses() if several and use.copies > 1]


def _select(component: Component) -> Indices | None:
    """Rows that a component's filter keeps; None where it has none."""
    features, text = component.features, component.filter
    if not len(features):
        raise ValueError(f"{features.name}: holds no samples; leave it out of the mixture")
    if text is None:
        return None
    try:
        rows = select_rows(text, features)
    except ConfigError as error:
        raise ConfigError(f"{features.name}: {error}") from None
    if not len(rows):
        raise ConfigError(f"{features.name}: filter {text!r} keeps none of {len(features)} samples; widen it")
    return rows


def _buckets(features: Features, rows: Indices | None) -> list[Bucket]:
    """Buckets of the samples of a component."""
    return [
        features.buckets[number] for number in np.unique(features.bucket if rows is None else features.bucket[rows])
    ]


def _shared_buckets(sets: Sequence[Features], present: Sequence[Sequence[Bucket]]) -> list[Bucket]:
    """All buckets, sorted.

    Raises:
        ValueError: pictures of one size have different latents, or texts different widths.
    """
    widths = {features.text_dim for features in sets}
    if len(widths) > 1:
        raise ValueError(f"encoded by different models, text widths differ: {sorted(widths)}")
    buckets = sorted({bucket for found in present for bucket in found})
    channels = {bucket.latent_shape[0] for bucket in buckets}
    if len(channels) > 1 or len({bucket[:2] for bucket in buckets}) < len(buckets):
        raise ValueError(f"encoded by different models, latents of pictures of one size differ: {buckets}")
    return buckets


def _compact(rows: Indices) -> npt.NDArray[np.integer]:
    """The same numbers in 4 bytes each where they fit."""
    return rows.astype(np.int32) if rows.max() < 2**31 else rows


def _digest_rows(rows: Indices) -> str:
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:12]


def _merge(parts: Sequence[tuple[Tensor, Tensor, Tensor]], size: int) -> tuple[Tensor, Tensor]:
    """Put (places, text, mask) of several sets into one batch, padded with zeros to the longest."""
    length = max(text.shape[1] for _, text, _ in parts)
    merged = torch.zeros(size, length, parts[0][1].shape[2])
    mask = torch.zeros(size, length, dtype=torch.int64)
    for places, text, text_mask in parts:
        merged[places, : text.shape[1]] = text
        mask[places, : text.shape[1]] = text_mask
    return merged, mask
