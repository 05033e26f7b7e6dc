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
    what decoders make, not only clean drawings. In these groups the last picture becomes an unclear one, so that the
    reward also falls between right and wrong, where generators must find their way: a blend of the preferred picture
    and the first other one, which lies between the two, or the preferred picture under heavy noise. All draws depend on
    (seed, global position).
    """

    def __init__(self, reward: SceneReward, vae: nn.Module, stage: RewardStage) -> None:
        self.modules: MutableMapping[str, nn.Module] = {"reward": reward}
        self.words_of = reward.words_of
        self.facets = tuple(reward.readers)
        self.vae, self.stage = vae, stage

    def losses(self, batch: PreferenceBatch, step: int) -> Iterator[Loss]:
        """One loss for one micro-batch."""
        weights = self.stage.preferences
        images, sources, unclear, between = self.unclear(batch)
        hidden = self.hidden(batch)
        judged: Judgement = self.modules["reward"](images, self.words_of(batch.prompts), sources, batch.is_edit, hidden)
        rewards = judged.rewards.float()
        ranking, anchor = bradley_terry(rewards, between), anchored(rewards, unclear)
        labels = batch.labels.clone()
        labels[unclear, -1] = IGNORE
        reading = reading_loss(judged.readings, labels, self.facets)
        guessing = reading_loss(judged.guesses, labels[:, 0].masked_fill(~hidden[:, :, None], IGNORE), self.facets)
        metrics = {"loss": ranking, "loss_anchor": anchor, "loss_reading": reading, "loss_guessing": guessing}
        right = (rewards[:, 0] > rewards[:, 1]).float()
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
    def unclear(self, batch: PreferenceBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures [B, K, 3, H, W] and sources [B, 3, H, W] in [0, 1], a share of the groups out of the VAE; [B] bool:
        where the last picture is unclear, and where it lies between the preferred picture and the first other one."""
        images, sources = batch.images.clone(), batch.sources.clone()
        unclear = torch.zeros_like(batch.is_edit)
        between = torch.zeros_like(batch.is_edit)
        seed, settings = self.stage.seed, self.stage.preferences
        rows = (uniforms(seed, batch.index, "reward decoded") < settings.decoded_share).nonzero().flatten()
        if len(rows) == 0:
            return images, sources, unclear, between
        index = [batch.index[row] for row in rows.tolist()]
        latents, noise = self.encoded(batch, rows.tolist())
        unclear[rows] = True
        between[rows] = (uniforms(seed, index, "reward unclear") < 0.5).to(between.device)
        share = uniforms(seed, index, "reward share").to(latents.device)[:, None, None, None]
        blend = torch.lerp(latents[:, 1], latents[:, 0], 0.1 + 0.8 * share)
        heavy = latents[:, 0] + (0.3 + 0.7 * share) * noise[:, -2]
        latents[:, -2] = torch.where(between[rows][:, None, None, None], blend, heavy)
        images[rows], sources[rows] = self.decoded(latents)
        return images, sources, unclear, between

    def encoded(self, batch: PreferenceBatch, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Latents [b, K + 1, C, h, w] of pictures and sources of some groups under a little noise, and that noise."""
        index = [batch.index[row] for row in rows]
        pictures = torch.cat([batch.images[rows], batch.sources[rows][:, None]], dim=1)
        latents = encode(self.vae, 2 * pictures.flatten(0, 1) - 1)
        latents = latents.view(*pictures.shape[:2], *latents.shape[1:])
        noise = normals(latents.shape[1:], self.stage.seed, index, "reward noise").to(latents.device)
        level = uniforms(self.stage.seed, index, "reward noise level").to(latents.device)[:, None, None, None, None]
        return latents + self.stage.preferences.latent_noise * level * noise, noise

    def decoded(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents of groups [b, K + 1, C, h, w] as pictures [b, K, 3, H, W] and sources [b, 3, H, W] in [0, 1]."""
        pictures = (decode(self.vae, latents.flatten(0, 1)) + 1) / 2
        pictures = pictures.view(*latents.shape[:2], *pictures.shape[1:])
        return pictures[:, :-1], pictures[:, -1]

    def state_dict(self) -> dict[str, Any]:
        """Nothing beside the network."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing beside the network."""


def bradley_terry(rewards: Tensor, between: Tensor) -> Tensor:
    """-log sigmoid(better - worse), mean over pairs (Bradley and Terry 1952).

    Args:
        rewards: [B, K]; the first is better than all others.
        between: [B] bool, where the last is also better than the second.
    """
    gaps = torch.cat([rewards[:, :1] - rewards[:, 1:], rewards[:, -1:] - rewards[:, 1:2]], dim=1)
    counts = torch.ones_like(gaps)
    counts[:, -1] = between.to(gaps.dtype)
    return -(counts * functional.logsigmoid(gaps)).sum() / counts.sum()


def anchored(rewards: Tensor, unclear: Tensor) -> Tensor:
    """First rewards above zero, others below: the logistic loss of 'is this right?', both sides with the same weight.

    Ranking alone leaves the zero of every prompt free; a cap on the reward needs one scale for all prompts.

    Args:
        rewards: [B, K].
        unclear: [B] bool, where the last picture is neither right nor wrong and does not count.
    """
    counts = torch.ones_like(rewards[:, 1:])
    counts[:, -1] = (~unclear).to(counts.dtype)
    wrong = (counts * functional.logsigmoid(-rewards[:, 1:])).sum() / counts.sum()
    return -(functional.logsigmoid(rewards[:, 0]).mean() + wrong) / 2


def reading_loss(readings: dict[str, Tensor], labels: Tensor, facets: tuple[str, ...]) -> Tensor:
    """Cross-entropy of all facets, mean over cells; facets with one class and unreadable cells do not count."""
    losses = []
    for number, name in enumerate(facets):
        scores, wanted = readings[name].flatten(0, -2).float(), labels[..., number].flatten()
        if scores.shape[1] > 1:
            losses.append(functional.cross_entropy(scores, wanted, ignore_index=IGNORE))
    return torch.stack(losses).sum()
