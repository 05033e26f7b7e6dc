"""Safetensors files, mapped into memory: what is not touched is not read, and what was read can be dropped again."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name. They live as long as they are used; writing to them does not reach the file.

    No file stays open: a data set may have more of them than a process may open.

    Raises:
        ValueError: not a safetensors file with tensors of the types in `DTYPES`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or 8 + length > size:
            raise ValueError(f"{path}: no safetensors file, or cut off in its header")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{path}: no safetensors file ({error})") from None
    content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None or 8 + length + end > size:
            raise ValueError(f"{path}: tensor {name} of type {entry['dtype']} cannot be read")
        tensors[name] = content[8 + length + start : 8 + length + end].view(dtype).view(entry["shape"])
    return tensors
