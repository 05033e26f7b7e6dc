"""Whether a triplet can be looked at at all."""

from __future__ import annotations

import re

import numpy as np

from data_prep.edits.config import Integrity
from data_prep.edits.verdict import Pixels

# How language models begin when they decline. Instructions themselves never speak of an "I".
_REFUSAL = re.compile(
    r"\b(i['’]?\s?a?m (sorry|unable|afraid)|i (cannot|can['’]?t|could not|won['’]?t|apologi[sz]e)\b|as an ai\b"
    r"|unable to (assist|help|comply|process|generate|edit)|no (edit|instruction|change)s? (is |are )?(needed|possible)"
    r"|against (my|the) (policy|guidelines))",
    re.IGNORECASE,
)


def picture_problem(source: Pixels, target: Pixels, min_side: int) -> tuple[str, str] | None:
    """Reason and detail if the two pictures are no pair: `not_rgb8`, `geometry`, `too_small` or `identical`."""
    for name, pixels in (("source", source), ("target", target)):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            return "not_rgb8", f"{name} is {pixels.dtype} {list(pixels.shape)}, wanted uint8 [H, W, 3]"
    if source.shape != target.shape:
        (h, w), (th, tw) = source.shape[:2], target.shape[:2]
        return "geometry", f"source is {w}x{h} px, target {tw}x{th}"
    if min(source.shape[:2]) < min_side:
        return "too_small", f"shorter side is {min(source.shape[:2])} px, the least is {min_side}"
    if np.array_equal(source, target):
        return "identical", "source and target are the same picture"
    return None


def instruction_problem(text: str, config: Integrity) -> tuple[str, str] | None:
    """Reason and detail if nobody could follow the text: `no_instruction`, `instruction_length` or `refusal`."""
    length = len(text.strip())
    if not any(character.isalnum() for character in text):
        return "no_instruction", "the instruction holds no word"
    if not config.min_characters <= length <= config.max_characters:
        return "instruction_length", f"{length} characters, wanted {config.min_characters} to {config.max_characters}"
    if config.refusals and (found := _REFUSAL.search(text)):
        return "refusal", f"the instruction says {found.group()!r}"
    return None
