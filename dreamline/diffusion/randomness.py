"""Random numbers that depend on (seed, index, purpose) alone: never on rank, world size, batch or earlier draws."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, index: int, purpose: str) -> np.random.Generator:
    """A counter-based stream of its own (Philox; Salmon et al. 2011) for one sample or one step."""
    key = np.array([seed & 0xFFFFFFFFFFFFFFFF, zlib.crc32(purpose.encode())], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, index, 0], dtype=np.uint64)))


def normals(shape: Sequence[int], seed: int, indices: Sequence[int], purpose: str) -> Tensor:
    """Standard normal float32 [len(indices), *shape]; row i depends on (seed, indices[i], purpose) only."""
    rows = [generator(seed, index, purpose).standard_normal(tuple(shape), dtype=np.float32) for index in indices]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *shape)


def uniforms(seed: int, indices: Sequence[int], purpose: str) -> Tensor:
    """Uniform float32 in [0, 1), [len(indices)]."""
    return torch.tensor([generator(seed, index, purpose).random() for index in indices], dtype=torch.float32)
