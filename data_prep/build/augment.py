"""Which edits follow from those that were accepted: the way back, and two as one. Decided on columns alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from data_prep.build.known import Known
from data_prep.build.pack import Packed, index_name, read_index
from data_prep.build.plan import Refusals, Staged
from data_prep.build.resolve import edit_key
from data_prep.build.store import Store
from data_prep.edits.augment import EditLink, chain, inverse_link, joined
from data_prep.edits.config import AugmentConfig
from data_prep.edits.vocabulary import EditType, edit_type_of, scope_of

Kind = Literal["inverse", "chain", "merge"]
SPAN = 500  # derivations
COLUMNS = ("key", "source", "sha256", "source_sha256", "text", "label", "licence", "width", "height")


@dataclass(frozen=True)
class Parent:
    """An accepted edit, and where it is staged."""

    link: EditLink  # pictures by the sha256 of their files
    source: str  # name of its source
    licence: str | None
    size: tuple[int, int]  # width and height of the smaller picture as it came, px
    pack: str
    place: Packed


@dataclass(frozen=True)
class Derivation:
    """An edit to be made of others."""

    kind: Kind
    key: str
    text: str
    type: EditType
    parents: tuple[Parent, ...]

    @property
    def row(self) -> str:
        """What stands for the row of a source."""
        return f"{self.kind} of {' and '.join(parent.link.key for parent in self.parents)}"


@dataclass(frozen=True)
class DerivedSpan:
    """Some derivations, the unit of work."""

    derivations: tuple[Derivation, ...]

    name = ""  # of no source


def plan_augmentation(
    store: Store, prefix: str, staged: Staged, refusals: Refusals, config: AugmentConfig, known: Known
) -> list[DerivedSpan]:
    """What can be made of the accepted edits, sorted by key; what is there already is not made again."""
    if not (config.inverse or config.chain or config.merge):
        return []
    parents = sorted(_accepted(store, prefix, staged, refusals), key=lambda parent: parent.link.key)
    found: dict[str, Derivation] = {}
    for derivation in _derivations(parents, config):
        if not known.has_key(derivation.key):
            found.setdefault(derivation.key, derivation)
    keys = sorted(found)
    there = np.isin(np.asarray(keys, staged.key.dtype), staged.key).tolist()
    chosen = [found[key] for key, taken in zip(keys, there, strict=True) if not taken]
    return [DerivedSpan(tuple(chosen[i : i + SPAN])) for i in range(0, len(chosen), SPAN)]


def _accepted(store: Store, prefix: str, staged: Staged, refusals: Refusals) -> Iterator[Parent]:
    edits = np.asarray([group.kind == "edit" for group in staged.groups], np.bool_)
    chosen = np.flatnonzero(refusals.keep(len(staged)) & ~staged.negative)
    chosen = chosen[edits[staged.group[chosen]]]
    for span, numbers in staged.by_span(chosen):
        table = read_index(store, index_name(prefix, staged.spans[span]), COLUMNS).take(staged.row[numbers])
        for number, row in zip(numbers.tolist(), table.to_pylist(), strict=True):
            columns = (staged.offset, staged.size, staged.head, staged.tar_size)
            yield _parent(row, staged.packs[span], Packed(*(int(column[number]) for column in columns)))


def _parent(row: dict[str, Any], pack: str, place: Packed) -> Parent:
    text = row["text"] or ""
    link = EditLink(row["key"], row["source_sha256"], row["sha256"], text, edit_type_of(row["label"], text))
    return Parent(link, row["source"], row["licence"], (row["width"], row["height"]), pack, place)


def _derivations(parents: Sequence[Parent], config: AugmentConfig) -> Iterator[Derivation]:
    if config.inverse:
        for parent in parents:
            back = inverse_link(parent.link)
            if back is not None:
                yield _derivation("inverse", back, parent)
    by_source: dict[str, list[Parent]] = defaultdict(list)
    for parent in parents:
        by_source[parent.link.source_id].append(parent)
    made: Counter[str] = Counter()  # by first picture
    if config.chain:
        for first in parents:
            for second in by_source.get(first.link.target_id, ()):
                both = chain(first.link, second.link)
                if both is not None and _may_join(first, second) and made[both.source_id] < config.max_composed:
                    made[both.source_id] += 1
                    yield _derivation("chain", both, first, second)
    if config.merge:
        for picture, edits in by_source.items():
            local = [edit for edit in edits if scope_of(edit.link.type) == "local"]
            for first, second in combinations(local, 2):
                if made[picture] >= config.max_composed:
                    break
                if _may_join(first, second):
                    made[picture] += 1
                    yield _merge(first, second)


def _may_join(first: Parent, second: Parent) -> bool:
    """Two edits become one only if the same may be done with both."""
    return first.licence == second.licence


def _derivation(kind: Kind, link: EditLink, *parents: Parent) -> Derivation:
    """Of known pictures: the key is that of such an edit from a source."""
    key = edit_key(link.source_id, link.target_id, link.instruction)
    return Derivation(kind, key, link.instruction, link.type, parents)


def _merge(first: Parent, second: Parent) -> Derivation:
    """The target is still to be made, so the key comes from the parents."""
    one, two = first.link, second.link
    key = hashlib.sha256(f"merge|{one.key}|{two.key}".encode()).hexdigest()[:32]
    kind: EditType = one.type if one.type == two.type else "other"
    return Derivation("merge", key, joined(one.instruction, two.instruction), kind, (first, second))
