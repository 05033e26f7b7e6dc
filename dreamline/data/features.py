"""Encoded data sets: latents and text features, mapped into memory for random access.

A shard is `<name>.safetensors` with `latents` [N, C, h, w], `text` [sum L, D], `text_offsets` [N + 1], `null_text`,
`null_offsets`, and for edits `source_latents` [N, C, h, w], `image_text`, `image_offsets`, `image_index` [N]: what the
text encoder makes of a source image is stored once per different image (the decoder is causal, so all prompts of an
image share these states), the empty prompt's states too. `<name>.rows` is such a file, too: `rows` [N] in the data
set, `keys` and `prompts` as UTF-8 with `key_offsets` and `prompt_offsets` [N + 1]. `<name>.arrow` holds all that is
known of every sample, for filters; `<name>.json` marks the shard as finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dreamline.config import ConfigError
from dreamline.data.encoded import read_features_info
from dreamline.data.feature_shard import MappedShard, States
from dreamline.data.order import Indices

if TYPE_CHECKING:
    import pyarrow as pa


class Bucket(NamedTuple):
    """A shape that encoded samples have."""

    width: int  # px
    height: int
    latent_shape: tuple[int, int, int]  # channels, height, width


@dataclass(frozen=True)
class Rows:
    """Encoded samples of one bucket, texts padded with zeros to the longest. All values are float32."""

    keys: list[str]
    prompts: list[str]
    is_edit: Tensor  # [b] bool
    latents: Tensor  # [b, C, h, w]
    source_latents: Tensor  # [b, C, h, w]; zeros for generation
    text: Tensor  # [b, L, D]
    text_mask: Tensor  # [b, L] int64: 1 for a token, 0 for padding
    null_text: Tensor  # [b, L0, D] the empty prompt, of edits with the sample's own source image
    null_mask: Tensor  # [b, L0] int64


class Features(Protocol):
    """What a mixture needs of one source of encoded samples, whether they lie on disk or are encoded when asked for."""

    @property
    def name(self) -> str:
        """Where the samples come from, for messages."""
        ...

    @property
    def fingerprint(self) -> str:
        """Names the values: equal for equal data, encoders and settings."""
        ...

    @property
    def order_key(self) -> str:
        """What the order of the samples follows from: the same whether they are read or encoded."""
        ...

    @property
    def text_dim(self) -> int:
        """Width D of the text states."""
        ...

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The shapes that occur."""
        ...

    @property
    def bucket(self) -> Indices:
        """[N] number in `buckets` of each sample."""
        ...

    @property
    def is_edit(self) -> npt.NDArray[np.bool_]:
        """[N] whether a sample is an edit."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is known of every sample: those of the data set's manifest."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """[N] one of them."""
        ...

    def __len__(self) -> int:
        """Number N of samples, numbered as in the data set."""
        ...

    def read(self, rows: Indices) -> Rows:
        """Samples of one bucket, in the order of the numbers.

        Raises:
            ValueError: the samples are of several buckets.
        """
        ...


class FeatureSet:
    """The encoded samples of one folder, numbered as in the data set; see `Features`.

    Args:
        folder: of an encode job.
        partial: whether samples may be missing; `has` tells which.

    Raises:
        ConfigError: the folder is no encoded data set, samples are missing, or a file is not what dataset.json says.
    """

    def __init__(self, folder: str | Path, partial: bool = False) -> None:
        self.folder, self.partial = Path(folder), partial
        self.name = str(folder)
        self.info = info = read_features_info(folder)
        self.fingerprint, self.order_key, self.text_dim = info.fingerprint, info.order_key, info.text_dim
        if not (info.complete or partial):
            raise ConfigError(
                f"{folder}: {info.num_samples} of {info.num_rows} samples are encoded; run the encode job again, "
                "or give the data set too, so that the others are encoded when they are needed"
            )
        shapes = [Bucket(shard.width, shard.height, shard.latent_shape) for shard in info.shards]
        self.buckets = tuple(sorted(set(shapes)))
        self._shards = [MappedShard(self.folder, entry, info.text_dim) for entry in info.shards]
        self._shard = np.full(info.num_rows, -1, dtype=np.int32)
        self._place = np.zeros(info.num_rows, dtype=np.int32)
        self.bucket: Indices = np.zeros(info.num_rows, dtype=np.int64)
        self.is_edit = np.zeros(info.num_rows, dtype=np.bool_)
        start = 0
        for number, (shard, shape) in enumerate(zip(self._shards, shapes, strict=True)):
            rows = shard.rows(start)
            start += len(rows)
            self._shard[rows], self._place[rows] = number, np.arange(len(rows))
            self.bucket[rows], self.is_edit[rows] = self.buckets.index(shape), shard.entry.kind == "edit"
        if int((self._shard >= 0).sum()) != info.num_samples:
            raise ConfigError(f"{folder}: its shards do not hold the {info.num_samples} samples that dataset.json says")

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureSet, (self.folder, self.partial)

    def __len__(self) -> int:
        """Number of samples, numbered as in the data set."""
        return self.info.num_rows

    def has(self, rows: Indices) -> npt.NDArray[np.bool_]:
        """Which of the samples are encoded."""
        return self._shard[rows] >= 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is known of every sample."""
        names = [shard.table.column_names for shard in self._shards]
        return tuple(name for name in names[0] if all(name in other for other in names)) if names else ()

    def column(self, name: str) -> pa.ChunkedArray:
        """[N] one of them.

        Raises:
            ConfigError: there is no such column, or samples are missing.
        """
        import pyarrow as pa

        if name not in self.columns:
            raise ConfigError(f"{self.folder}: has no column {name!r}; there are {', '.join(self.columns)}")
        if not self.info.complete:
            raise ConfigError(f"{self.folder}: is not complete; ask the data set for its columns")
        whole = pa.chunked_array([chunk for shard in self._shards for chunk in shard.table.column(name).chunks])
        starts = np.cumsum([0, *(shard.entry.samples for shard in self._shards)])
        stored = starts[self._shard] + self._place
        return whole if np.array_equal(stored, np.arange(len(self))) else whole.take(pa.array(stored))

    def read(self, rows: Indices) -> Rows:
        """Samples of one bucket, in the order of the numbers.

        Raises:
            ValueError: the samples are of several buckets, or one is not encoded.
        """
        found = np.unique(self.bucket[rows])
        if len(found) != 1 or not self.has(rows).all():
            raise ValueError(f"{self.folder}: rows {rows.tolist()} are not encoded samples of one bucket")
        size, shape = len(rows), self.buckets[found[0]].latent_shape
        latents, sources = torch.empty(size, *shape), torch.zeros(size, *shape)
        keys, prompts = [""] * size, [""] * size
        texts: list[States] = [()] * size
        nulls: list[States] = [()] * size
        numbers = self._shard[rows]
        for number in np.unique(numbers):
            shard, where = self._shards[number], np.flatnonzero(numbers == number)
            places = self._place[rows[where]]
            into, chosen = torch.from_numpy(where), torch.from_numpy(places).long()
            tensors = shard.tensors
            latents[into] = tensors["latents"][chosen].float()
            if "source_latents" in tensors:
                sources[into] = tensors["source_latents"][chosen].float()
            for i, place in zip(where.tolist(), places.tolist(), strict=True):
                keys[i], prompts[i] = shard.keys[place], shard.prompts[place]
                texts[i], nulls[i] = shard.states(place)
        is_edit = torch.from_numpy(self.is_edit[rows])
        return Rows(keys, prompts, is_edit, latents, sources, *self._pad(texts), *self._pad(nulls))

    def _pad(self, pieces: Sequence[States]) -> tuple[Tensor, Tensor]:
        """Stack states: float32 [b, L, D], zeros behind, and the mask [b, L] int64."""
        dtype = self._shards[0].tensors["text"].dtype
        width = self.text_dim * dtype.itemsize  # bytes of a token
        sizes = [sum(end - start for _, start, end in parts) for parts in pieces]
        longest = max(sizes)
        padded = bytearray(len(pieces) * longest)
        into = memoryview(padded)
        for number, parts in enumerate(pieces):
            place = number * longest
            for view, start, end in parts:
                into[place : place + end - start] = view[start:end]
                place += end - start
        states = torch.frombuffer(padded, dtype=dtype).view(len(pieces), -1, self.text_dim).float()
        mask = torch.arange(states.shape[1]) < torch.tensor(sizes)[:, None] // width
        return states, mask.long()


def merge(parts: Sequence[tuple[Indices, Rows]], size: int) -> Rows:
    """Samples of one shape that were read in parts, each with the places where its samples belong."""
    keys, prompts = [""] * size, [""] * size
    for places, part in parts:
        for place, key, prompt in zip(places.tolist(), part.keys, part.prompts, strict=True):
            keys[place], prompts[place] = key, prompt

    def whole(values: Sequence[Tensor]) -> Tensor:
        length = max(value.shape[1] for value in values) if values[0].ndim in (2, 3) else None
        shape = values[0].shape[1:] if length is None else (length, *values[0].shape[2:])
        merged = values[0].new_zeros(size, *shape)
        for (places, _), value in zip(parts, values, strict=True):
            into = merged if length is None else merged[:, : value.shape[1]]
            into[torch.from_numpy(places)] = value
        return merged

    names = ("is_edit", "latents", "source_latents", "text", "text_mask", "null_text", "null_mask")
    return Rows(keys, prompts, *(whole([getattr(part, name) for _, part in parts]) for name in names))
