"""One file of encoded samples, mapped into memory (layout: see `dreamline.data.features`)."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dreamline.config import ConfigError
from dreamline.data.encoded import FeatureShard
from dreamline.data.mapped import map_tensors
from dreamline.data.order import Indices

if TYPE_CHECKING:
    import pyarrow as pa

Span = tuple[memoryview, int, int]  # bytes start..end-1
States = tuple[Span, ...]  # of tokens, end to end


class MappedShard:
    """One file, opened when it is needed first.

    Raises:
        ConfigError: the file is missing or has another size.
    """

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
        """All that is known of the samples.

        Raises:
            ConfigError: the table is missing or damaged.
        """
        import pyarrow as pa

        if self.entry.table is None:
            records = self._records
            facts = [json.dumps(value, sort_keys=True, separators=(",", ":")) for value in records["facts"]]
            return pa.table(
                {"key": records["keys"], "text": records["prompts"], "label": records["labels"], "facts": facts}
            )
        path = self.path.with_suffix(".arrow")
        try:
            with pa.ipc.open_file(pa.memory_map(str(path))) as file:
                return file.read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); run the encode job again") from None

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
