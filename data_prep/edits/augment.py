"""New triplets from accepted ones: the way back, and two edits as one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.edits.instructions import Inverse, invert
from data_prep.edits.pair import dilate
from data_prep.edits.verdict import Mask, Pixels
from data_prep.edits.vocabulary import EditType, scope_of


@dataclass(frozen=True)
class EditLink:
    """An accepted edit as a link between two pictures, which are known by name (such as their sha256)."""

    key: str
    source_id: str
    target_id: str
    instruction: str
    type: EditType


def inverse_link(link: EditLink) -> EditLink | None:
    """Target -> source with the instruction for the way back; None where there is none, see `invert`."""
    found: Inverse | None = invert(link.instruction, link.type)
    if found is None:
        return None
    return EditLink(f"{link.key}-inverse", link.target_id, link.source_id, found.instruction, found.type)


def chain(first: EditLink, second: EditLink) -> EditLink | None:
    """A -> B and B -> C as A -> C, known to be a chain because the first target is the second source.

    None if they do not join, or if the second leads back to where the first began.
    """
    if first.target_id != second.source_id or first.source_id == second.target_id:
        return None
    text = joined(first.instruction, second.instruction)
    kind: EditType = first.type if first.type == second.type else "other"
    return EditLink(f"{first.key}-then-{second.key}", first.source_id, second.target_id, text, kind)


def merged_target(
    source: Pixels, first: tuple[Pixels, Mask, EditType], second: tuple[Pixels, Mask, EditType], gap: int = 8
) -> Pixels | None:
    """The target of both edits of one source, for local edits whose masks lie apart.

    Args:
        source: uint8 [H, W, 3].
        first, second: target, mask bool [H, W] of what it changed, and type.
        gap: px that must lie between the masks, half of it is taken over with each.

    Returns:
        The picture, or None if an edit is not local, the geometries differ, or the masks come too close.
    """
    (one, one_mask, one_type), (two, two_mask, two_type) = first, second
    if scope_of(one_type) != "local" or scope_of(two_type) != "local":
        return None
    if not source.shape == one.shape == two.shape or not one_mask.shape == two_mask.shape == source.shape[:2]:
        return None
    if not one_mask.any() or not two_mask.any() or (dilate(one_mask, gap) & two_mask).any():
        return None
    near_one, near_two = dilate(one_mask, gap // 2), dilate(two_mask, gap // 2)
    target = np.where(near_one[..., None], one, source)
    return np.asarray(np.where(near_two[..., None], two, target), np.uint8)


def joined(first: str, second: str) -> str:
    """Both instructions in one sentence, in their order."""
    start, end = first.strip().rstrip(".!;,"), second.strip()
    return f"{start}, then {end[:1].lower()}{end[1:]}"
