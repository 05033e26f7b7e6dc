"""A small cross-attention reader of encoder states: what a U-Net could find in them, one layer deep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamline.scenes.world import World
from training.encoders.examples import Reading, num_contents


class SceneReader(nn.Module):
    """One learned query for every cell and one for the background attend to the states and name what is there."""

    def __init__(self, world: World, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.num_cells = world.grid**2
        self.queries = nn.Parameter(torch.randn(self.num_cells + 1, width))
        self.to_keys = nn.Linear(width, width, bias=False)
        self.to_values = nn.Linear(width, width, bias=False)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU())
        self.name_cell = nn.Linear(2 * width, num_contents(world))
        self.name_background = nn.Linear(2 * width, len(world.backgrounds))

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, L, D] and mask [B, L] (True = token) -> logits [B, cells, contents] and [B, backgrounds]."""
        keys, values = (
            layer(states).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.to_keys, self.to_values)
        )
        queries = self.queries.view(len(self.queries), self.heads, -1).transpose(0, 1).expand(len(states), -1, -1, -1)
        found = F.scaled_dot_product_attention(queries, keys, values, mask[:, None, None])
        mixed = self.mix(found.transpose(1, 2).flatten(2) + self.queries)
        return self.name_cell(mixed[:, : self.num_cells]), self.name_background(mixed[:, self.num_cells])


def reading_loss(reader: SceneReader, states: Tensor, mask: Tensor, wanted: Sequence[Reading]) -> Tensor:
    """Kullback-Leibler divergence from the wanted readings, mean over the queries; zero for a perfect reader."""
    cells, background = reader(states, mask)
    right_cells = torch.from_numpy(np.stack([reading.cells for reading in wanted]))
    right_background = torch.from_numpy(np.stack([reading.background for reading in wanted]))
    per_cell = F.kl_div(cells.log_softmax(-1), right_cells, reduction="none").sum(-1)
    per_background = F.kl_div(background.log_softmax(-1), right_background, reduction="none").sum(-1)
    return (per_cell.sum(1) + per_background).mean() / (reader.num_cells + 1)
