"""Rejected edits as the worse half of preference pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from data_prep.edits.instructions import normal_form

# Reasons that say nothing of how well the instruction was carried out.
NO_FAULT = frozenset(
    {
        *("no_instruction", "instruction_length", "refusal", "not_rgb8", "geometry", "mask_geometry", "too_small"),
        *("duplicate_edit", "source_cap", "type_cap", "contaminated", "foreground_too_small", "score_missing"),
    }
)


@dataclass(frozen=True)
class JudgedEdit:
    """One attempt at an edit and what became of it."""

    key: str
    source_id: str
    instruction: str
    reason: str | None  # None for an accepted one


@dataclass(frozen=True)
class Preference:
    """Two attempts at one instruction for one source."""

    source_id: str
    instruction: str
    accepted: str  # key of the better target
    rejected: str  # key of the worse
    reason: str  # why it was rejected


def preferences(edits: Iterable[JudgedEdit]) -> list[Preference]:
    """Every rejected attempt with the first accepted one of the same source and instruction, in order of key.

    Instructions are the same if their normal forms are. Attempts rejected for a reason that is no fault of the picture
    (`NO_FAULT`) and those without an accepted counterpart are left out.
    """
    groups: dict[tuple[str, str], list[JudgedEdit]] = defaultdict(list)
    for edit in edits:
        groups[edit.source_id, normal_form(edit.instruction)].append(edit)
    found = []
    for group in groups.values():
        accepted = min((edit for edit in group if edit.reason is None), key=lambda edit: edit.key, default=None)
        if accepted is None:
            continue
        found += [
            Preference(edit.source_id, accepted.instruction, accepted.key, edit.key, edit.reason)
            for edit in group
            if edit.reason is not None and edit.reason not in NO_FAULT
        ]
    return sorted(found, key=lambda row: (row.accepted, row.rejected))


def preference_table(rows: Iterable[Preference]) -> Any:
    """As a pyarrow table: source_id, instruction, accepted, rejected, reason (strings, not null)."""
    import pyarrow as pa

    names = ("source_id", "instruction", "accepted", "rejected", "reason")
    schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in names])
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
