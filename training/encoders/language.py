"""Pre-training of the vision-language encoder on the scene world.

A U-Net attends to the encoder's last states, so these must bind colours to shapes, objects to places and instructions
to the picture. Two losses see to it: the language-model loss of an answer that says so in canonical words, and the loss
of small readers that look at the very states the pipelines keep (the readers are thrown away).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import DynamicCache

from dreamline.model.prompts import EDIT_DROP, EDIT_TEMPLATE, GENERATE_TEMPLATE
from dreamline.scenes.render import render
from dreamline.scenes.sampling import rng_for
from dreamline.scenes.world import World
from training.encoders.build import VISION, build_image_processor, prefix_of
from training.encoders.examples import Example, edit_examples, generation_examples
from training.encoders.reader import SceneReader, reading_loss

BATCHES = {"generate": 64, "edit": 48}  # examples of each template in a step
ANSWER_EVERY = {"generate": 1, "edit": 3}  # steps; answers of edits are long, and most steps only read the kept states
LEARNING_RATE = 2e-3
WARMUP = 100  # steps
TEXT_WEIGHT = 0.1  # of a token of the user's text, where one of the answer weighs 1
IMAGE_TOKENS = 4
CHUNK = 64  # pictures prepared at a time
PICTURE_SIDE = 64  # px, after the processor
ANSWER_END = "<|im_end|>"


@dataclass(frozen=True)
class Sequences:
    """Tokenised examples of one template, without the template's constant prefix.

    ids: int64 [N, L], padded on the right. kept: [N], how many leading tokens the pipelines keep. weight: [N, L],
    weight of predicting each token. pixels: uint8 [N, patches, values], what the processor makes of the pictures.
    """

    prefix: Tensor
    ids: Tensor
    kept: Tensor
    weight: Tensor
    examples: list[Example]
    pixels: Tensor | None = None

    def at(self, index: Tensor) -> Sequences:
        """Some of them, cut to the longest."""
        length = int((self.weight[index] > 0).nonzero()[:, 1].max()) + 1
        return Sequences(
            self.prefix,
            self.ids[index, :length],
            self.kept[index],
            self.weight[index, :length],
            [self.examples[int(i)] for i in index],
            None if self.pixels is None else self.pixels[index],
        )

    def without_answers(self) -> Sequences:
        """Only what the pipelines keep."""
        length = int(self.kept.max())
        return replace(self, ids=self.ids[:, :length], weight=torch.zeros(len(self.ids), length))


def tokenise(tokenizer: Any, examples: Sequence[Example], world: World, side: int = PICTURE_SIDE) -> Sequences:
    """Put examples of one kind (all with a picture, or none) into the real chat template.

    Args:
        side: px, to which pictures are brought before the processor, which shrinks larger ones. The pipelines use
            IMAGE_SIDE; the default is ten times faster and equal to within 0.06 (mean 0.001) on the scale of -1 to 1.
    """
    edits = examples[0].picture is not None
    template = EDIT_TEMPLATE if edits else GENERATE_TEMPLATE
    prefix = prefix_of(template)
    rest = template.removeprefix(prefix).replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS)
    begin = len(VISION) + len("<|image_pad|>") * (IMAGE_TOKENS - 1) if edits else 0
    rows, weights, kept = [], [], []
    for example in examples:
        prompt = tokenizer(rest.format(example.text))["input_ids"]
        answer = tokenizer(example.answer + ANSWER_END)["input_ids"]
        fixed = len(tokenizer(rest[:begin])["input_ids"])
        rows.append(prompt + answer)
        text = [TEXT_WEIGHT] * (len(prompt) - 5 - fixed)
        weights.append([0.0] * fixed + text + [0.0] * 5 + [1.0] * len(answer))
        kept.append(len(prompt))
    longest = max(map(len, rows))
    return Sequences(
        torch.tensor(tokenizer(prefix)["input_ids"]),
        torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows]),
        torch.tensor(kept),
        torch.tensor([row + [0.0] * (longest - len(row)) for row in weights]),
        list(examples),
        _patches(examples, world, side) if edits else None,
    )


def _patches(examples: Sequence[Example], world: World, side: int) -> Tensor:
    """What the processor makes of the pictures, [N, patches, values], as uint8 to save memory."""
    processor = build_image_processor()
    found = []
    for start in range(0, len(examples), CHUNK):
        scenes = [example.picture for example in examples[start : start + CHUNK] if example.picture is not None]
        pictures = [Image.fromarray(render(scene, world)) for scene in scenes]
        small = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures]
        values = processor(images=small, return_tensors="pt")["pixel_values"]
        found.append(((values + 1) * 127.5).round().to(torch.uint8).view(len(scenes), -1, values.shape[-1]))
    return torch.cat(found)


def last_states(model: Any, batch: Sequences) -> Tensor:
    """Last hidden states [B, L, D] behind the prefix.

    Attention is causal and the prefix constant, so its keys and values are computed once for the whole batch; padding
    is on the right, where no token sees it.
    """
    decoder = model.model.language_model
    past: DynamicCache = decoder(input_ids=batch.prefix[None], use_cache=True).past_key_values
    past.batch_repeat_interleave(len(batch.ids))
    embedded = decoder.embed_tokens(batch.ids)
    positions = len(batch.prefix) + torch.arange(batch.ids.shape[1]).expand(3, 1, -1)
    vision: dict[str, Any] = {}
    if batch.pixels is not None:
        grid = torch.tensor([[1, 4, 4]]).expand(len(batch.ids), -1)
        pixels = batch.pixels.flatten(0, 1).float() / 127.5 - 1
        features = model.model.get_image_features(pixels, grid)
        picture = torch.stack(features.pooler_output)
        embedded = torch.cat([embedded[:, :1], picture, embedded[:, 1 + IMAGE_TOKENS :]], 1)
        at = torch.zeros(batch.ids.shape, dtype=torch.bool)
        at[:, 1 : 1 + IMAGE_TOKENS] = True
        vision = {
            "visual_pos_masks": at,
            "deepstack_visual_embeds": [torch.cat(tuple(level)) for level in features.deepstack_features],
        }
        positions = _picture_positions(batch.ids.shape[1])
    states: Tensor = decoder(
        inputs_embeds=embedded,
        position_ids=positions.expand(-1, len(batch.ids), -1),
        past_key_values=past,
        use_cache=True,
        **vision,
    ).last_hidden_state
    return states


def _picture_positions(length: int) -> Tensor:
    """Rotary positions (time, row, column) [3, 1, L] behind the edit prefix: mark, 2x2 picture, text."""
    start = EDIT_DROP + 1
    picture = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]) + start
    mark = torch.full((3, 1), EDIT_DROP)
    text = (start + 2 + torch.arange(length - 1 - IMAGE_TOKENS)).expand(3, -1)
    return torch.cat([mark, picture, text], 1)[:, None]


def kept_mask(batch: Sequences) -> Tensor:
    """Which tokens the pipelines keep, bool [B, longest]."""
    return torch.arange(int(batch.kept.max())) < batch.kept[:, None]


def language_loss(model: Any, states: Tensor, batch: Sequences) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of the next tokens, and which rows' answers are right in every token (greedy)."""
    weight = batch.weight[:, 1:]
    chosen = weight > 0
    logits = model.lm_head(states[:, :-1][chosen])
    labels = batch.ids[:, 1:][chosen]
    loss = (F.cross_entropy(logits, labels, reduction="none") * weight[chosen]).sum() / weight.sum()
    wrong = torch.zeros(weight.shape, dtype=torch.bool)
    wrong[chosen] = logits.argmax(-1) != labels
    return loss, ~(wrong & (weight == 1)).any(1)


def train_encoder(
    model: Any, tokenizer: Any, world: World, steps: int, seed: int, num_examples: int = 20_000
) -> dict[str, float]:
    """Pre-train the encoder in place on training-split prompts; every step sees a batch of both templates.

    Returns:
        CPU seconds and the losses of the last steps.
    """
    sets = [
        tokenise(tokenizer, examples, world)
        for examples in (generation_examples(world, num_examples, seed), edit_examples(world, num_examples, seed))
    ]
    torch.manual_seed(seed)
    readers = {name: SceneReader(world, model.config.text_config.hidden_size) for name in ("target", "source")}
    parameters = [*model.parameters(), *(value for reader in readers.values() for value in reader.parameters())]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    begin = time.process_time()
    recent: dict[str, float] = {}
    for step in range(steps):
        rate = LEARNING_RATE * min(1, (step + 1) / WARMUP) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        rng = rng_for(seed, step, "encoder/batch")
        for name, data in zip(("generate", "edit"), sets, strict=True):
            batch = data.at(torch.from_numpy(rng.integers(len(data.ids), size=BATCHES[name])))
            losses = _losses(model, readers, batch if step % ANSWER_EVERY[name] == 0 else batch.without_answers())
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
            for part, value in losses.items():
                key = f"{name}_{part}"
                recent[key] = 0.95 * recent.get(key, value.item()) + 0.05 * value.item()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 100 == 99:
            shown = " ".join(f"{key} {value:.4f}" for key, value in recent.items())
            print(f"encoder step {step + 1} {shown} cpu {time.process_time() - begin:.0f} s", flush=True)
    model.eval()
    losses_at_end = {key: round(value, 4) for key, value in recent.items()}
    return {**losses_at_end, "cpu_seconds": round(time.process_time() - begin, 1)}


def _losses(model: Any, readers: dict[str, SceneReader], batch: Sequences) -> dict[str, Tensor]:
    states = last_states(model, batch)
    mask = kept_mask(batch)
    kept = states[:, : mask.shape[1]]
    losses = {"reading": reading_loss(readers["target"], kept, mask, [example.target for example in batch.examples])}
    if batch.weight.any():
        losses["language"] = language_loss(model, states, batch)[0]
    sources = [example.source for example in batch.examples if example.source is not None]
    if sources:
        losses["source"] = reading_loss(readers["source"], kept, mask, sources)
    return losses
