"""Preference groups as tensors, by global sample position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamline.config import digest
from dreamline.rewards.reading import labels
from dreamline.scenes.captions import sample_captioned_scene
from dreamline.scenes.edits import sample_edit
from dreamline.scenes.render import render
from dreamline.scenes.sampling import rng_for
from dreamline.scenes.world import Split, World
from rl.preferences import Preference, sample_preference

VOCABULARY_SAMPLES = 4000


@dataclass(frozen=True)
class PreferenceBatch:
    """B groups of K pictures; the first of each group is the preferred one."""

    index: list[int]  # global positions
    prompts: list[str]
    images: Tensor  # [B, K, 3, H, W] in [0, 1]
    sources: Tensor  # [B, 3, H, W] in [0, 1]; zeros for generation
    is_edit: Tensor  # [B] bool
    labels: Tensor  # [B, K, cells, facets] class numbers, see `dreamline.rewards.reading`
    faults: list[tuple[str, ...]]  # what is wrong in pictures 1 .. K - 1


class PreferenceData:
    """The endless sequence of preference groups of one split; nothing is stored, every position is drawn anew."""

    def __init__(
        self, world: World, seed: int, edit_share: float, device: torch.device, split: Split = "train"
    ) -> None:
        self.world, self.seed, self.edit_share, self.device, self.split = world, seed, edit_share, device, split
        values = {"world": world.model_dump(mode="json"), "seed": seed, "edit_share": edit_share}
        self.identity = {"data": digest(values)}

    def batch(self, positions: range) -> PreferenceBatch:
        """The groups at these global positions."""
        groups = [sample_preference(self.world, self.seed, i, self.split, self.edit_share) for i in positions]
        scenes = [(group.winner, *group.losers) for group in groups]
        images = np.stack([[render(scene, self.world) for scene in row] for row in scenes])
        sources = np.stack([self._source(group) for group in groups])
        return PreferenceBatch(
            list(positions),
            [group.prompt for group in groups],
            self._pixels(images),
            self._pixels(sources),
            torch.tensor([group.source is not None for group in groups], device=self.device),
            torch.from_numpy(np.stack([[labels(scene, self.world) for scene in row] for row in scenes])).to(
                self.device
            ),
            [group.faults for group in groups],
        )

    def _source(self, group: Preference) -> np.ndarray:
        side = self.world.size
        return np.zeros((side, side, 3), np.uint8) if group.source is None else render(group.source, self.world)

    def _pixels(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).to(self.device).movedim(-1, -3).float() / 255


def training_prompts(world: World) -> list[str]:
    """A fixed set of training captions and instructions, enough to meet every word of the world."""
    texts = []
    for index in range(VOCABULARY_SAMPLES):
        rng = rng_for(0, index, "vocabulary")
        texts.append(sample_captioned_scene(world, rng, "train")[1].text)
        texts.append(sample_edit(world, rng, "train").instruction)
    return texts
