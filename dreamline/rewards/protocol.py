"""What every reward model offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Reward(Protocol):
    """Says how well pictures do what was asked; the gradient flows back into the pictures."""

    def score(self, images: Tensor, prompts: Sequence[str], sources: Tensor | None = None) -> Tensor:
        """Judge pictures.

        Args:
            images: [B, 3, H, W] in [0, 1].
            prompts: B captions, or B instructions where sources are given.
            sources: [B, 3, H, W] in [0, 1], the pictures before the edit; None for generation.

        Returns:
            [B] rewards; more is better. Their scale is the model's own.
        """
        ...
