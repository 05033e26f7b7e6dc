"""Encoded data sets: latents and text features, mapped into memory for random access.

A shard is `<name>.safetensors` with `latents` [N, C, h, w], `text` [sum L, D], `text_offsets` [N + 1], `null_text`,
`null_offsets`, and for edits `source_latents` [N, C, h, w], `image_text`, `image_offsets`, `image_index` [N]: what the
text encoder makes of a source image is stored once per different image (the decoder is causal, so all prompts of an
image share these states), the empty prompt's states too. `<name>.rows` is such a file, too: `rows` [N] in the data
set, `keys` and `prompts` as UTF-8 with `key_offsets` and `prompt_offsets` [N + 1]. `<name>.arrow` holds all that is
known of every sample, for filters; `<name>.json` marks the shard as finished.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dreamline.config import ConfigError
from dreamline.data.encoded import FeatureShard, read_features_info
from dreamline.data.mapped import map_tensors
from dreamline.data.order import Indices

if TYPE_CHECKING:
    import pyarrow as pa


Span = tuple[memoryview, int, int]  # bytes start..end-1
States = tuple[Span, ...]  # of tokens, end to end


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
        self._shards = [_Shard(self.folder, entry, info.text_dim) for entry in info.shards]
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


class _Shard:
    """One file, opened when it is needed first."""

    def __init__(self, folder: Path, entry: FeatureShard, text_dim: int) -> None:
        self.path, self.entry, self.text_dim = folder / entry.name, entry, text_dim
        if not self.path.is_file() or self.path.stat().st_size != entry.size:
            raise ConfigError(f"{self.path}: missing or not {entry.size} bytes long; run the encode job again")

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the file."""
        try:
            tensors = map_tensors(self.path)
        except ValueError as error:
            raise ConfigError(f"{error}; run the encode job again") from None
        sizes = {len(tensors["latents"]), len(tensors["text_offsets"]) - 1, len(self.keys)}
        if sizes != {self.entry.samples} or int(tensors["text_offsets"][-1]) != len(tensors["text"]):
            raise ConfigError(
                f"{self.path}: holds {sorted(sizes)} samples, not {self.entry.samples}; run the encode job again"
            )
        return tensors

    @cached_property
    def table(self) -> pa.Table:
        """All that is known of the samples."""
        import pyarrow as pa

        if self.entry.table is None:
            records = self._records
            facts = [json.dumps(value, sort_keys=True, separators=(",", ":")) for value in records["facts"]]
            return pa.table(
                {"key": records["keys"], "text": records["prompts"], "label": records["labels"], "facts": facts}
            )
        with pa.ipc.open_file(pa.memory_map(str(self.path.with_suffix(".arrow")))) as file:
            return file.read_all()

    @cached_property
    def _records(self) -> dict[str, list[Any]]:
        """Content of the sidecar."""
        records: dict[str, list[Any]] = json.loads(self.path.with_suffix(".json").read_text())
        return records

    @cached_property
    def _rows(self) -> dict[str, Tensor]:
        path = self.path.with_suffix(".rows")
        try:
            return map_tensors(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); run the encode job again") from None

    def rows(self, start: int) -> Indices:
        """Rows in the data set: as the shard says, else from `start` on."""
        if self.entry.rows is None:
            return np.arange(start, start + self.entry.samples)
        return np.asarray(self._rows["rows"].numpy(), np.int64)

    @cached_property
    def keys(self) -> Strings:
        """Keys."""
        return self._strings("key", "keys")

    @cached_property
    def prompts(self) -> Strings:
        """Captions or instructions."""
        return self._strings("prompt", "prompts")

    def _strings(self, one: str, many: str) -> Strings:
        if self.entry.rows is None:
            return self._records[many]
        return _Packed(_view(self._rows[f"{one}_offsets"]), _view(self._rows[many]))

    @cached_property
    def _offsets(self) -> dict[str, memoryview]:
        """Offsets of tokens as views of plain numbers, which are the fastest to ask for a single one."""
        names = ("text_offsets", "null_offsets", "image_offsets", "image_index")
        return {name: _view(self.tensors[name]) for name in names if name in self.tensors}

    @cached_property
    def _bytes(self) -> dict[str, memoryview]:
        """States as views of bytes: the fastest way to copy short pieces, and any type will do."""
        names = [name for name in ("text", "null_text", "image_text") if name in self.tensors]
        return {name: _view(self.tensors[name].view(torch.uint8).flatten()) for name in names}

    def states(self, place: int) -> tuple[States, States]:
        """Bytes of the states of a prompt and of the empty prompt; of edits those of the image come first."""
        image = self._offsets["image_index"][place] if "image_index" in self._offsets else 0
        text, null = self._span("text", "text", place), self._span("null_text", "null", image)
        if "image_index" not in self._offsets:
            return (text,), (null,)
        look = self._span("image_text", "image", image)
        return (look, text), (look, null)

    def _span(self, name: str, offsets: str, number: int) -> Span:
        places = self._offsets[f"{offsets}_offsets"]
        return self._bytes[name], places[number] * self._width, places[number + 1] * self._width

    @cached_property
    def _width(self) -> int:
        """Bytes of a token."""
        return self.text_dim * self.tensors["text"].element_size()


def _view(tensor: Tensor) -> memoryview:
    values: Any = tensor.numpy()
    return memoryview(values)


class _Packed:
    """Strings where they lie, end to end."""

    def __init__(self, offsets: memoryview, content: memoryview) -> None:
        self._offsets, self._content = offsets, content

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: int) -> str:
        return str(self._content[self._offsets[number] : self._offsets[number + 1]], "utf-8")


Strings = list[str] | _Packed
