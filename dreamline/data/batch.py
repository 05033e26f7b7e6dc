"""`Batch`: what every objective gets, whichever tasks it mixes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Encoded samples, padded to the longest text. Features are float32, masks are 1 for a token and 0 for padding."""

    keys: list[str]
    prompts: list[str]  # captions and instructions as written, without template
    index: Tensor  # [B] int64 global positions: what a sample's random numbers depend on
    latents: Tensor  # [B, C, h, w] image, or target of the edit
    source_latents: Tensor  # [B, C, h, w] source of the edit; zeros for generation
    is_edit: Tensor  # [B] bool
    text: Tensor  # [B, L, D] hidden states of the prompt; for edits with the source's image tokens in front
    text_mask: Tensor  # [B, L] int64
    null_text: Tensor  # [B, L0, D] the same for the empty prompt
    null_mask: Tensor  # [B, L0] int64
    time_ids: Tensor  # [B, 2] float32 width and height, px

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device, non_blocking=True) for name, value in values.items() if torch.is_tensor(value)}
        return Batch(**(values | moved))
