"""Samples that are encoded when they are asked for, all or those that a cache lacks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dreamline.config import ConfigError, digest
from dreamline.data.features import Bucket, FeatureSet, Rows, merge
from dreamline.data.index import SampleIndex, open_index
from dreamline.data.order import Indices
from dreamline.data.shard_cache import CacheConfig
from dreamline.data.shards import ShardReader
from dreamline.encoding.encoders import Encoded, Encoders
from dreamline.encoding.placement import edits, place
from dreamline.encoding.settings import EncodeSettings, cache_key, check_key
from dreamline.model.text import pad

if TYPE_CHECKING:
    import pyarrow as pa


class OnTheFly:
    """A data set and the encoders, used like encoded samples; see `Features`.

    Values are rounded to the types of the settings, so that they are those of a cache but for the last bits, which
    follow what else is encoded in the same batch.

    Args:
        data: a data set: folder or s3:// URL.
        frozen: folder of the encoders.
        cache: folder of an encode job that need not be complete; its settings count.
        settings: without a cache.
        device: of the encoders; what is read lies in memory.

    Raises:
        ConfigError: the cache is of another data set, of other encoders or settings, or pictures fit no size.
    """

    def __init__(
        self,
        data: Path | str,
        frozen: Path | str,
        cache: Path | str | None = None,
        settings: EncodeSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._arguments = (data, frozen, cache, settings, device)
        self._busy = Lock()  # tokenizers are not made for several threads at once
        self.index: SampleIndex = open_index(data)
        self.name = self.index.folder
        self.frozen, self.device = frozen, device
        self.cache = None if cache is None else FeatureSet(cache, partial=True)
        info = None if self.cache is None else self.cache.info
        self.settings = EncodeSettings.model_validate(info.settings) if info else settings or EncodeSettings()
        key = full_key(self.index, frozen, self.settings)
        if info:
            check_key(info.key, key, str(cache))
        self.fingerprint = info.fingerprint if info else digest(key)
        self.order_key = info.order_key if info else self.index.fingerprint
        sizes, self.bucket = place(self.index, self.settings, self.encoders.factor)
        self.is_edit = edits(self.index)
        self.text_dim = self.encoders.text_dim
        self.buckets = tuple(Bucket(*size, self.encoders.latent_shape(size)) for size in sizes)

    def __reduce__(self) -> tuple[Any, ...]:
        return OnTheFly, self._arguments

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.index)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is known of every sample."""
        return self.index.columns

    def column(self, name: str) -> pa.ChunkedArray:
        """[N] one of them."""
        return self.index.column(name)

    @cached_property
    def encoders(self) -> Encoders:
        """The frozen networks."""
        return Encoders.load(self.frozen, self.device)

    @cached_property
    def _reader(self) -> ShardReader:
        return ShardReader(self.index, CacheConfig())

    def read(self, rows: Indices) -> Rows:
        """Samples of one bucket, in the order of the numbers.

        Raises:
            ValueError: the samples are of several buckets.
        """
        if len(np.unique(self.bucket[rows])) != 1:
            raise ValueError(f"{self.name}: rows {rows.tolist()} are not of one bucket")
        cached = np.zeros(len(rows), dtype=np.bool_) if self.cache is None else self.cache.has(rows)
        parts = []
        if self.cache is not None and cached.any():
            parts.append((np.flatnonzero(cached), self.cache.read(rows[cached])))
        for edit in (False, True):
            where = np.flatnonzero(~cached & (self.is_edit[rows] == edit))
            if len(where):
                parts.append((where, self._encode(rows[where])))
        return parts[0][1] if len(parts) == 1 else merge(parts, len(rows))

    def _encode(self, rows: Indices) -> Rows:
        """Samples of one kind and bucket."""
        width, height, _ = self.buckets[self.bucket[rows[0]]]
        samples = self._reader.read(rows)
        with self._busy:
            encoded = self.encoders.encode(samples, (width, height), self.settings.batch_size)
        return to_rows(encoded, self.settings)


def full_key(index: SampleIndex, frozen: Path | str, settings: EncodeSettings) -> dict[str, object]:
    """The key of encoded samples: the samples, in their order, and all that they are encoded by."""
    key = {"data": index.fingerprint, "layout": index.layout, **cache_key(frozen, settings)}
    if index.roles is not None:  # which of a record's pictures and texts count; the fingerprint is over all of them
        key["roles"] = index.roles.model_dump(mode="json", include={"image", "source", "text"})
    return key


def to_rows(encoded: Encoded, settings: EncodeSettings) -> Rows:
    """Encoded samples as a cache would give them back."""
    latent, text = (getattr(torch, name) for name in (settings.latent_dtype, settings.text_dtype))

    def stored(values: Tensor, dtype: torch.dtype) -> Tensor:
        rounded = values.detach().cpu().to(dtype).float()
        if not bool(torch.isfinite(rounded).all()):
            raise ConfigError(
                f"samples {', '.join(sample.key for sample in encoded.samples)}: encoded values are not finite as "
                f"{dtype}; use bfloat16 or float32 (text_dtype, latent_dtype), or check the encoders"
            )
        return rounded

    texts, nulls = zip(*(encoded.states(i) for i in range(len(encoded.samples))), strict=True)
    latents = stored(encoded.latents, latent)
    sources = encoded.source_latents
    return Rows(
        [sample.key for sample in encoded.samples],
        [sample.text for sample in encoded.samples],
        torch.full((len(latents),), sources is not None),
        latents,
        torch.zeros_like(latents) if sources is None else stored(sources, latent),
        *pad([stored(torch.cat(parts), text) for parts in texts]),
        *pad([stored(torch.cat(parts), text) for parts in nulls]),
    )
