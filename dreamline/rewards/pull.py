"""The pull of a reward on generated latents: decoded, judged, and capped so that it ends where a picture is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dreamline.data.batch import Batch
from dreamline.model.vae import decode
from dreamline.rewards.config import RewardTerms
from dreamline.rewards.protocol import Reward


def capped_hinge(rewards: Tensor, caps: Tensor) -> Tensor:
    """relu(cap - reward) [B]; -reward where the cap is infinite."""
    return torch.where(torch.isinf(caps), -rewards, torch.relu(caps - rewards))


class RewardPull:
    """A frozen VAE and a frozen reward that judge latents, with the gradient back into the latents."""

    def __init__(self, vae: nn.Module, reward: Reward) -> None:
        self.vae, self.reward = vae, reward

    def __call__(self, batch: Batch, latents: Tensor, terms: RewardTerms) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of latents [B, C, h, w], the weighted mean of capped hinges, and the mean reward of each task."""
        rewards = self.rewards(batch, latents)
        each = [terms.editing if edit else terms.generation for edit in batch.is_edit.tolist()]
        weight = torch.tensor([term.weight for term in each], device=rewards.device)
        caps = torch.tensor([torch.inf if term.cap is None else term.cap for term in each], device=rewards.device)
        hinge = (weight * capped_hinge(rewards, caps)).mean()
        metrics = {"loss_reward": hinge.detach()}
        for name, rows in (("reward_generation", ~batch.is_edit), ("reward_editing", batch.is_edit)):
            if bool(rows.any()):
                metrics[name] = rewards[rows].detach().mean()
        return hinge, metrics

    def rewards(self, batch: Batch, latents: Tensor) -> Tensor:
        """Reward [B] of decoded latents; edits are judged against their source."""
        images = (decode(self.vae, latents) + 1) / 2
        rewards = torch.zeros(len(images), device=images.device)
        for rows in ((~batch.is_edit).nonzero().flatten(), batch.is_edit.nonzero().flatten()):
            if len(rows) == 0:
                continue
            prompts = [batch.prompts[row] for row in rows.tolist()]
            sources = None
            if bool(batch.is_edit[rows[0]]):
                with torch.no_grad():
                    sources = (decode(self.vae, batch.source_latents[rows]) + 1) / 2
            rewards = rewards.index_copy(0, rows, self.reward.score(images[rows], prompts, sources).float())
        return rewards
