"""What the encoder knows, measured on the benchmark's held-out prompts and edits.

Two questions: does it answer exactly, and can a fresh small reader find objects, colours and places in its frozen last
states? The reader is trained here on training-split prompts only, so an untrained encoder can be asked the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamline.model.prompts import IMAGE_SIDE
from dreamline.scenes.benchmark import EditItem, GenerationItem, edit_items, generation_items
from dreamline.scenes.edits import Edit
from dreamline.scenes.facts import RELATIONS, Facts, ObjectFact
from dreamline.scenes.sampling import rng_for
from dreamline.scenes.world import SceneObject, World
from training.encoders.examples import (
    Probabilities,
    edit_example,
    edit_examples,
    generation_example,
    generation_examples,
    looks_of_fact,
    objects_of,
    read_scene,
)
from training.encoders.language import Sequences, kept_mask, language_loss, last_states, tokenise
from training.encoders.reader import SceneReader, reading_loss

CHUNK = 128
READER_BATCH = 128
READER_RATE = 3e-3


def measure_encoder(
    model: Any, tokenizer: Any, world: World, seed: int, num_items: int = 480, num_train: int = 4000, steps: int = 1200
) -> dict[str, float]:
    """Shares of right answers and readings.

    `answer/*`: the greedy answer equals the wanted one in every token. `reading/count`, `/position`, `/attribution`,
    `/size`, `/style`, `/background`: the number of objects, on which side both objects stand, which colour, size or
    style has which shape, the stated background. `reading/edit`: all cells and the background of the target;
    `reading/edit/held_out` the same for pairs that never meet in training. `states/rms`, `states/std`: scale of the
    states, and their mean deviation per channel.
    """
    drawn = generation_items(world, num_items, seed)
    edits = edit_items(world, num_items, seed)
    captions = [generation_example(item.prompt, item.facts, world) for item in drawn]
    changes = [edit_example(Edit(item.type, item.instruction, item.source, item.target), world) for item in edits]
    scores: dict[str, float] = {}
    train = [
        frozen_states(model, tokenise(tokenizer, examples, world))
        for examples in (generation_examples(world, num_train, seed + 1), edit_examples(world, num_train, seed + 1))
    ]
    reader = fit_reader(train, world, steps, seed)
    for name, examples in (("generation", captions), ("edit", changes)):
        states, data, right = frozen_states(model, tokenise(tokenizer, examples, world, IMAGE_SIDE))
        scores[f"answer/{name}"] = right.float().mean().item()
        mask = kept_mask(data)
        cells, background = _predict(reader, states, mask)
        found = _read_generation(drawn, cells, background, world) if name == "generation" else {}
        scores |= found or _read_edits(edits, cells, background, world)
        kept = states[mask]
        scores[f"states/rms/{name}"] = kept.square().mean().sqrt().item()
        scores[f"states/std/{name}"] = kept.std(0).mean().item()
    return {key: round(value, 4) for key, value in scores.items()}


@torch.no_grad()
def frozen_states(model: Any, data: Sequences) -> tuple[Tensor, Sequences, Tensor]:
    """Kept states [N, L, D] of all examples, the examples, and whether each greedy answer is right [N]."""
    states, right = [], []
    longest = int(data.kept.max())
    for start in range(0, len(data.ids), CHUNK):
        batch = data.at(torch.arange(start, min(start + CHUNK, len(data.ids))))
        found = last_states(model, batch)
        right.append(language_loss(model, found, batch)[1])
        states.append(torch.nn.functional.pad(found, (0, 0, 0, max(0, longest - found.shape[1])))[:, :longest])
    return torch.cat(states), data, torch.cat(right)


def fit_reader(train: Sequence[tuple[Tensor, Sequences, Tensor]], world: World, steps: int, seed: int) -> SceneReader:
    """Train a fresh reader of target scenes on frozen states; its inputs are normalised per channel."""
    torch.manual_seed(seed)
    reader = SceneReader(world, train[0][0].shape[-1])
    optimiser = torch.optim.AdamW(reader.parameters(), lr=READER_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        states, data, _ = train[step % len(train)]
        index = torch.from_numpy(rng_for(seed, step, "encoder/reader").integers(len(states), size=READER_BATCH))
        wanted = [data.examples[int(i)].target for i in index]
        loss = reading_loss(reader, states[index], kept_mask(data)[index], wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return reader.eval()


@torch.no_grad()
def _predict(reader: SceneReader, states: Tensor, mask: Tensor) -> tuple[Probabilities, Probabilities]:
    cells, background = reader(states, mask)
    return cells.softmax(-1).numpy(), background.softmax(-1).numpy()


def _read_generation(
    items: Sequence[GenerationItem], cells: Probabilities, background: Probabilities, world: World
) -> dict[str, float]:
    counts, positions, backgrounds = [], [], []
    bound: dict[str, list[bool]] = {"attribution": [], "size": [], "style": []}
    for item, found, behind in zip(items, cells, background, strict=True):
        facts = item.facts
        counts.append(round(float((1 - found[:, 0]).sum())) == sum(fact.count for fact in facts.objects))
        if facts.relation is not None and len({fact.shape for fact in facts.objects}) == 2:
            positions.append(_stands_right(facts, found, world))
        if len(facts.looks) == len(facts.objects) > 1:
            bound["attribution"].append(_binds("colour", facts, found, world))
        for name in ("size", "style"):
            if item.category == name:
                bound[name].append(_binds(name, facts, found, world))
        if facts.background is not None:
            backgrounds.append(world.backgrounds[int(behind.argmax())] == facts.background)
    named = {"count": counts, "position": positions, **bound, "background": backgrounds}
    return {f"reading/{key}": float(np.mean(values)) for key, values in named.items() if values}


def _binds(attribute: str, facts: Facts, found: Probabilities, world: World) -> bool:
    """Whether the likeliest pairs of a shape and this attribute are the stated ones."""
    at = ("colour", "shape", "size", "style").index(attribute)
    stated = {(getattr(fact, attribute) or facts.style, fact.shape) for fact in facts.objects}
    mass: dict[tuple[str, str], float] = {}
    for look, number in objects_of(world).items():
        pair = look[at], look[1]
        mass[pair] = mass.get(pair, 0.0) + float(found[:, number].sum())
    return set(sorted(mass, key=lambda pair: -mass[pair])[: len(stated)]) == stated


def _stands_right(facts: Facts, found: Probabilities, world: World) -> bool:
    """Whether both objects are likelier in the cells that the relation allows them than in the others."""
    assert facts.relation is not None
    holds = RELATIONS[facts.relation]
    first, second = facts.objects

    def likely(fact: ObjectFact, inside: bool, is_first: bool) -> float:
        """Probability mass of a fact's objects in the cells where they may stand (or may not)."""
        mass = 0.0
        for index in range(world.grid**2):
            here = SceneObject("circle", "red", *divmod(index, world.grid))
            others = [SceneObject("circle", "red", *divmod(i, world.grid)) for i in range(world.grid**2)]
            allowed = any(holds(here, other) if is_first else holds(other, here) for other in others)
            if allowed == inside:
                mass += float(found[index, looks_of_fact(fact, world)].sum())
        return mass

    return all(
        likely(fact, True, is_first) > likely(fact, False, is_first)
        for fact, is_first in ((first, True), (second, False))
    )


def _read_edits(
    items: Sequence[EditItem], cells: Probabilities, background: Probabilities, world: World
) -> dict[str, float]:
    right = []
    for item, found, behind in zip(items, cells, background, strict=True):
        wanted = read_scene(item.target, world)
        same = bool((found.argmax(-1) == wanted.cells.argmax(-1)).all())
        right.append(same and behind.argmax() == wanted.background.argmax())
    per_type = {
        f"reading/edit/{kind}": float(np.mean([ok for ok, item in zip(right, items, strict=True) if item.type == kind]))
        for kind in dict.fromkeys(item.type for item in items)
    }
    held_out = [ok for ok, item in zip(right, items, strict=True) if item.held_out]
    held_out_score = {"reading/edit/held_out": float(np.mean(held_out))} if held_out else {}
    return {"reading/edit": float(np.mean(right)), **per_type, **held_out_score}
