"""In-context conditioning: a prompt, a source and a noisy target become one U-Net input of double width.

target | blank for generation, target | source for editing; only the left half of the output counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dreamline.data.batch import Batch
from dreamline.diffusion.guidance import edit_guidance, text_guidance
from dreamline.diffusion.sampler import Velocity

Network = Callable[..., Any]  # a DreamLiteUNetModel, bare or wrapped by an engine


@dataclass(frozen=True)
class Conditions:
    """All that a prediction depends on beside (x, sigma)."""

    source: Tensor  # [B, C, h, w] source latents; zeros where there is none
    text: Tensor  # [B, L, D] hidden states of the prompt
    mask: Tensor  # [B, L] 1 = token, 0 = padding
    time_ids: Tensor  # [B, 2] width and height in pixels

    def __len__(self) -> int:
        return int(self.source.shape[0])

    def select(self, rows: Tensor) -> Conditions:
        """The given rows (indices or a boolean mask)."""
        return Conditions(self.source[rows], self.text[rows], self.mask[rows], self.time_ids[rows])


def prompted(batch: Batch) -> Conditions:
    """Prompt and, for edits, source."""
    return Conditions(batch.source_latents, batch.text, batch.text_mask, batch.time_ids)


def without_text(batch: Batch) -> Conditions:
    """The empty prompt in the task's own template; edits keep their source (also inside the text features)."""
    return Conditions(batch.source_latents, batch.null_text, batch.null_mask, batch.time_ids)


def unconditional(batch: Batch) -> Conditions:
    """Empty prompt and blank source: the first branch of guidance."""
    return replace(without_text(batch), source=torch.zeros_like(batch.source_latents))


def choose(where: Tensor, yes: Conditions, no: Conditions) -> Conditions:
    """Row by row: `yes` where the mask [B] is true, else `no`; texts are padded to one length."""
    length = max(yes.text.shape[1], no.text.shape[1])
    yes_text, yes_mask = _pad(yes.text, yes.mask, length)
    no_text, no_mask = _pad(no.text, no.mask, length)
    return Conditions(
        torch.where(where[:, None, None, None], yes.source, no.source),
        torch.where(where[:, None, None], yes_text, no_text),
        torch.where(where[:, None], yes_mask, no_mask),
        yes.time_ids,
    )


def dropped(batch: Batch, draw: Tensor, text_drop: float, source_drop: float) -> Conditions:
    """Conditions for training all branches of guidance, by a uniform draw [B] in [0, 1).

    Below `source_drop` neither prompt nor source, then for a share `text_drop` the empty prompt, else everything.
    """
    text = choose(draw < source_drop + text_drop, without_text(batch), prompted(batch))
    return choose(draw < source_drop, unconditional(batch), text)


def concatenate(*parts: Conditions) -> Conditions:
    """Stack along the batch; texts are padded to one length."""
    length = max(part.text.shape[1] for part in parts)
    texts, masks = zip(*(_pad(part.text, part.mask, length) for part in parts), strict=True)
    return Conditions(
        torch.cat([part.source for part in parts]),
        torch.cat(texts),
        torch.cat(masks),
        torch.cat([part.time_ids for part in parts]),
    )


def predict_velocity(network: Network, x: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
    """Velocity [B, C, h, w] of the noisy targets `x` [B, C, h, w] at `sigma` [B]."""
    output = network(
        torch.cat([x, conditions.source], dim=3),
        timestep=1000.0 * sigma,
        encoder_hidden_states=conditions.text,
        encoder_attention_mask=conditions.mask,
        added_cond_kwargs={"time_ids": conditions.time_ids},
        return_dict=False,
    )[0]
    velocity: Tensor = output[..., : x.shape[3]]
    return velocity


def velocity_field(network: Network, conditions: Conditions) -> Velocity:
    """The field without guidance."""
    return lambda x, sigma: predict_velocity(network, x, sigma, conditions)


def guided_field(network: Network, batch: Batch, guidance_scale: float, image_guidance_scale: float) -> Velocity:
    """The guided field of a batch that may mix generation (two branches) and edits (three branches)."""
    if guidance_scale == 1.0 and image_guidance_scale == 1.0:
        return velocity_field(network, prompted(batch))
    if image_guidance_scale == 1.0:  # the branch without the source cancels out
        both = concatenate(without_text(batch), prompted(batch))

        def text_only(x: Tensor, sigma: Tensor) -> Tensor:
            without, text = predict_velocity(network, torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
            return text_guidance(without, text, guidance_scale)

        return text_only
    size = len(batch.is_edit)
    edits = batch.is_edit.nonzero().flatten()
    branches = concatenate(unconditional(batch), without_text(batch).select(edits), prompted(batch))

    def field(x: Tensor, sigma: Tensor) -> Tensor:
        predicted = predict_velocity(
            network, torch.cat([x, x[edits], x]), torch.cat([sigma, sigma[edits], sigma]), branches
        )
        uncond, image, text = torch.split(predicted, [size, len(edits), size])
        guided = text_guidance(uncond, text, guidance_scale)
        if len(edits):
            guided[edits] = edit_guidance(uncond[edits], image, text[edits], guidance_scale, image_guidance_scale)
        return guided

    return field


def _pad(text: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    missing = length - text.shape[1]
    if missing == 0:
        return text, mask
    return torch.nn.functional.pad(text, (0, 0, 0, missing)), torch.nn.functional.pad(mask, (0, missing))
