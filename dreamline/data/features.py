"""Encoded data sets: latents and text features, held in memory for random access.

A shard is `<name>.safetensors` with `latents` [N, C, h, w], `text` [sum L, D], `text_offsets` [N + 1], `null_text`,
`null_offsets`, and for edits `source_latents` [N, C, h, w], `image_text`, `image_offsets`, `image_index` [N]: what the
text encoder makes of a source image is stored once per different image (the decoder is causal, so all prompts of an
image share these states), the empty prompt's states too. `<name>.json` holds keys, prompts, labels and facts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dreamline.config import ConfigError
from dreamline.data.manifest import FeaturesInfo, ShardEntry, read_info
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
    """All encoded samples of one folder, by number.

    Attributes:
        keys, prompts, labels, facts: per sample, as in `Sample`.
        latents, source_latents: [N, C, h, w] float32; the latter None for generation.
        tokens: [T + 1, D] the states of all texts, in stored precision; the last row is zero and stands for padding.

    Raises:
        ConfigError: the folder is no finished encoded data set, or a file does not hold what dataset.json says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.info = read_info(FeaturesInfo, folder)
        self.kind = self.info.kind
        self.fingerprint = self.info.fingerprint
        self.name = str(folder)
        self.order_key = self.info.fingerprint
        self.text_dim = self.info.text_dim
        self.resolution = (self.info.width, self.info.height)  # px
        self.buckets = (Bucket(*self.resolution, self.info.latent_shape),)
        self.keys: list[str] = []
        self.prompts: list[str] = []
        self.labels: list[str] = []
        self.facts: list[dict[str, Any]] = []
        shards = [self._read(entry) for entry in self.info.shards]
        self.latents = torch.cat([shard["latents"] for shard in shards]).float()
        self.source_latents = (
            torch.cat([shard["source_latents"] for shard in shards]).float() if self.kind == "edit" else None
        )
        parts = [shard[name] for shard in shards for name in ("image_text", "text", "null_text")]
        self.tokens = torch.cat([*parts, parts[0].new_zeros(1, self.info.text_dim)])
        prompts, nulls, base = [], [], 0
        for shard in shards:
            prompt, null = _spans(shard, base)
            prompts.append(prompt)
            nulls.append(null)
            base += sum(len(shard[name]) for name in ("image_text", "text", "null_text"))
        self._prompt_spans, self._null_spans = torch.cat(prompts), torch.cat(nulls)
        self.bucket: Indices = np.zeros(len(self.keys), dtype=np.int64)
        self.is_edit = np.full(len(self.keys), self.kind == "edit")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is known of every sample."""
        return ("key", "text", "label")

    def column(self, name: str) -> pa.ChunkedArray:
        """[N] one of them."""
        import pyarrow as pa

        return pa.chunked_array([{"key": self.keys, "text": self.prompts, "label": self.labels}[name]])

    def read(self, rows: Indices) -> Rows:
        """Samples in the order of the numbers."""
        chosen = torch.from_numpy(rows)
        latents = self.latents[chosen]
        sources = torch.zeros_like(latents) if self.source_latents is None else self.source_latents[chosen]
        return Rows(
            [self.keys[row] for row in rows],
            [self.prompts[row] for row in rows],
            torch.from_numpy(self.is_edit[rows]),
            latents,
            sources,
            *self.text(chosen),
            *self.null_text(chosen),
        )

    def text(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """States of the prompts of samples [b]: float32 [b, L, D] and mask int64 [b, L], L that of the longest."""
        return self._gather(self._prompt_spans[rows])

    def null_text(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the empty prompt, of edits with the sample's own source image."""
        return self._gather(self._null_spans[rows])

    def _gather(self, spans: Tensor) -> tuple[Tensor, Tensor]:
        image_start, image_length, start, length = spans.unsqueeze(2).unbind(1)  # [b, 1] each
        total = image_length + length
        column = torch.arange(int(total.max()))
        index = torch.where(column < image_length, image_start + column, start + column - image_length)
        mask = column < total
        index = torch.where(mask, index, len(self.tokens) - 1)
        return self.tokens[index].float(), mask.long()

    def _read(self, entry: ShardEntry) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        path = self.folder / entry.name
        if not path.is_file() or path.stat().st_size != entry.size:
            raise ConfigError(f"{path}: missing or not {entry.size} bytes long; run the encode job again")
        shard: dict[str, Tensor] = load_file(path)
        records = json.loads(path.with_suffix(".json").read_text())
        sizes = {len(shard["latents"]), len(shard["text_offsets"]) - 1, len(records["keys"])}
        if sizes != {entry.samples} or int(shard["text_offsets"][-1]) != len(shard["text"]):
            raise ConfigError(f"{path}: holds {sorted(sizes)} samples, not {entry.samples}; run the encode job again")
        self.keys += records["keys"]
        self.prompts += records["prompts"]
        self.labels += records["labels"]
        self.facts += records["facts"]
        if self.kind == "t2i":  # one empty prompt for all, and no image in front of a text
            shard["image_text"] = shard["text"].new_zeros(0, self.info.text_dim)
            shard["image_offsets"] = torch.zeros(2, dtype=torch.int64)
            shard["image_index"] = torch.zeros(entry.samples, dtype=torch.int64)
        return shard


def _spans(shard: dict[str, Tensor], base: int) -> tuple[Tensor, Tensor]:
    """Where the texts of a shard lie in `tokens` when its states begin at row `base`.

    Returns:
        Prompts and empty prompts, each [n, 4]: start and length of the image's states, then of what follows.
    """
    image = shard["image_index"]
    text_base = base + len(shard["image_text"])
    null_base = text_base + len(shard["text"])
    images = _span(shard["image_offsets"], base)[image]
    texts = _span(shard["text_offsets"], text_base)
    nulls = _span(shard["null_offsets"], null_base)[image]
    return torch.cat([images, texts], dim=1), torch.cat([images, nulls], dim=1)


def _span(offsets: Tensor, base: int) -> Tensor:
    """Start and length of each piece, [n, 2]."""
    return torch.stack([base + offsets[:-1], offsets.diff()], dim=1)
