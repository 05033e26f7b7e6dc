"""Safetensors files, mapped into memory: what is not touched is not read, and what was read can be dropped again."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name. They live as long as they are used; writing to them does not reach the file.

    Raises:
        ValueError: not a safetensors file with tensors of the types in `DTYPES`.
    """
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_RANDOM"):
        content.madvise(mmap.MADV_RANDOM)  # samples come in random order; reading ahead would only evict others
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None or 8 + length + end > len(content):
            raise ValueError(f"{path}: tensor {name} of type {entry['dtype']} cannot be read")
        if start == end:
            tensors[name] = torch.zeros(entry["shape"], dtype=dtype)
            continue
        count = (end - start) // dtype.itemsize
        flat = torch.frombuffer(content, dtype=dtype, count=count, offset=8 + length + start)
        tensors[name] = flat.view(entry["shape"])
    return tensors
