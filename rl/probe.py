"""What the reward says during training beside what is true: the two part ways where a reward is hacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dreamline.engine.world import World as Workers
from dreamline.model.generator import Generator, Sampling
from dreamline.model.vae import to_tensor
from dreamline.rewards.protocol import Reward
from dreamline.scenes.benchmark import edit_items, generation_items, score_edit, score_generation
from dreamline.scenes.detector import detect_many
from dreamline.scenes.render import render
from rl.config import ProbeConfig


class Probe:
    """Fixed unseen prompts and edits, drawn with the weights of the moment, judged by the reward and by the detector.

    Workers share the items; all of them get the means over all items.
    """

    def __init__(self, generator: Generator, reward: Reward, config: ProbeConfig, workers: Workers) -> None:
        self.generator, self.reward, self.config, self.workers = generator, reward, config, workers
        self.sampling = Sampling(config.num_steps, config.guidance_scale, config.image_guidance_scale)

    def __call__(self, step: int) -> Mapping[str, float]:
        """At every `every`-th step `exact_<task>`, share of right pictures, and `judged_<task>`, their mean reward."""
        if step % self.config.every:
            return {}
        return self.workers.mean({**self._generation(), **self._editing()})

    def _mine(self, items: Sequence[Any]) -> Sequence[Any]:
        return items[self.workers.rank :: self.workers.size]

    def _generation(self) -> dict[str, float]:
        config = self.config
        items = self._mine(generation_items(config.world, config.num_items, config.seed))
        prompts = [item.prompt for item in items]
        images = self.generator.pictures(prompts, [item.seed for item in items], self.sampling)
        seen = detect_many(images, config.world)
        right = [score_generation(item, scene) for item, scene in zip(items, seen, strict=True)]
        return self._told("generation", right, self._score(images, prompts, None))

    def _editing(self) -> dict[str, float]:
        config = self.config
        items = self._mine(edit_items(config.world, config.num_items, config.seed))
        prompts, sources = [item.instruction for item in items], [render(item.source, config.world) for item in items]
        pictures = [Image.fromarray(source) for source in sources]
        images = self.generator.pictures(prompts, [item.seed for item in items], self.sampling, pictures)
        seen = detect_many(images, config.world)
        right = [score_edit(item, scene).both for item, scene in zip(items, seen, strict=True)]
        return self._told("editing", right, self._score(images, prompts, torch.stack([to_tensor(s) for s in sources])))

    @torch.no_grad()
    def _score(self, images: NDArray[Any], prompts: Sequence[str], sources: Tensor | None) -> Tensor:
        device = self.generator.device
        before = None if sources is None else (sources.to(device) + 1) / 2
        return self.reward.score((to_tensor(images).to(device) + 1) / 2, prompts, before)

    def _told(self, task: str, right: Sequence[bool], rewards: Tensor) -> dict[str, float]:
        share = self.workers.size / self.config.num_items  # the mean over workers is then that over all items
        return {f"exact_{task}": sum(right) * share, f"judged_{task}": float(rewards.sum()) * share}
