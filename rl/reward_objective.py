"""Reward training: rank the preferred picture above the others, read every cell, guess hidden cells from the prompt."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dreamline.diffusion.randomness import normals, uniforms
from dreamline.engine.objective import Loss
from dreamline.model.vae import decode, encode
from dreamline.rewards.reading import IGNORE
from dreamline.rewards.scene_reward import Judgement, SceneReward
from rl.config import RewardStage
from rl.preference_data import PreferenceBatch


class RewardObjective:
    """Bradley-Terry ranking anchored at zero, and two tasks with denser labels that make it learnable in a minute.

    Reading: what does each cell show? Guessing: what must hidden cells of the preferred picture show, given the prompt,
    the source and the cells in sight? That teaches which word belongs to which object long before the ranking does.

    A share of the groups passes through the frozen VAE with a little noise on the latents, so that the network judges
    what decoders make, not only clean drawings. All draws depend on (seed, global position).
    """

    def __init__(self, reward: SceneReward, vae: nn.Module | None, stage: RewardStage) -> None:
        self.modules: MutableMapping[str, nn.Module] = {"reward": reward}
        self.words_of = reward.words_of
        self.facets = tuple(reward.readers)
        self.vae, self.stage = vae, stage

    def losses(self, batch: PreferenceBatch, step: int) -> Iterator[Loss]:
        """One loss for one micro-batch."""
        weights = self.stage.preferences
        images, sources = self.decoded(batch, self.stage.preferences.decoded_share)
        hidden = self.hidden(batch)
        judged: Judgement = self.modules["reward"](images, self.words_of(batch.prompts), sources, batch.is_edit, hidden)
        rewards = judged.rewards.float()
        ranking, anchor = bradley_terry(rewards), anchored(rewards)
        reading = reading_loss(judged.readings, batch.labels, self.facets)
        wanted = batch.labels[:, 0].masked_fill(~hidden[:, :, None], IGNORE)
        guessing = reading_loss(judged.guesses, wanted, self.facets)
        right = (rewards[:, :1] > rewards[:, 1:]).float().mean(dim=1)
        metrics = {"loss": ranking, "loss_anchor": anchor, "loss_reading": reading, "loss_guessing": guessing}
        for name, rows in (("generation", ~batch.is_edit), ("editing", batch.is_edit)):
            if bool(rows.any()):
                metrics[f"pair_accuracy_{name}"] = right[rows].mean()
        value = ranking + weights.anchor_weight * anchor
        value = value + weights.reading_weight * reading + weights.guessing_weight * guessing
        yield Loss("reward", value, {name: metric.detach() for name, metric in metrics.items()})

    def hidden(self, batch: PreferenceBatch) -> Tensor:
        """Cells of the preferred pictures to guess, [B, cells] bool: more of an edit, whose source shows the rest."""
        seed, cells = self.stage.seed, batch.labels.shape[2]
        draws = normals((cells,), seed, batch.index, "hidden cells").to(batch.labels.device)
        return draws < torch.where(batch.is_edit, 1.0, -0.3)[:, None]

    @torch.no_grad()
    def decoded(self, batch: PreferenceBatch, share: float) -> tuple[Tensor, Tensor]:
        """Pictures [B, K, 3, H, W] and sources [B, 3, H, W] in [0, 1]; a share of the groups comes out of the VAE."""
        chosen = (uniforms(self.stage.seed, batch.index, "reward decoded") < share).nonzero().flatten().tolist()
        if self.vae is None or not chosen:
            return batch.images, batch.sources
        pictures = torch.cat([batch.images, batch.sources[:, None]], dim=1)
        index, group = [batch.index[row] for row in chosen], pictures.shape[1]
        latents = encode(self.vae, 2 * pictures[chosen].flatten(0, 1) - 1)
        latents = latents.view(len(chosen), group, *latents.shape[1:])
        seed, device = self.stage.seed, latents.device
        level = self.stage.preferences.latent_noise * uniforms(seed, index, "reward noise level").to(device)
        noise = normals(latents.shape[1:], seed, index, "reward noise").to(device)
        noisy = latents + level[:, None, None, None, None] * noise
        pictures[chosen] = ((decode(self.vae, noisy.flatten(0, 1)) + 1) / 2).view(pictures[chosen].shape)
        return pictures[:, :-1], pictures[:, -1]

    def state_dict(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing beside the network."""


def bradley_terry(rewards: Tensor) -> Tensor:
    """-log sigmoid(winner - loser), mean over pairs; rewards [B, K], the winner first (Bradley and Terry 1952)."""
    return -functional.logsigmoid(rewards[:, :1] - rewards[:, 1:]).mean()


def anchored(rewards: Tensor) -> Tensor:
    """Winners above zero, losers below: the logistic loss of 'is this right?', both sides with the same weight.

    Ranking alone leaves the zero of every prompt free; a cap on the reward needs one scale for all prompts.
    """
    return -(functional.logsigmoid(rewards[:, 0]).mean() + functional.logsigmoid(-rewards[:, 1:]).mean()) / 2


def reading_loss(readings: dict[str, Tensor], labels: Tensor, facets: tuple[str, ...]) -> Tensor:
    """Cross-entropy of all facets, mean over cells; facets with one class and unreadable cells do not count."""
    losses = []
    for number, name in enumerate(facets):
        scores, wanted = readings[name].flatten(0, -2).float(), labels[..., number].flatten()
        if scores.shape[1] > 1:
            losses.append(functional.cross_entropy(scores, wanted, ignore_index=IGNORE))
    return torch.stack(losses).sum()
