"""Rules over all edits of a build: duplicates, edits per source, balance of types, evaluation pictures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data_prep.edits.config import EditSetConfig
from data_prep.edits.instructions import NUM_HASHES, minhash, similarity
from data_prep.edits.vocabulary import EditType

_ROWS = 2  # entries of a signature in one band; 16 bands miss a similarity of 0.9 less than once in 10^11


@dataclass(frozen=True)
class EditRow:
    """What the rules need of one edit."""

    key: str  # unique; ties go by it, so the order of rows does not matter
    source_id: str  # one name per source picture, such as its sha256
    source_hash: int  # 64-bit perceptual hash of the source
    instruction: str
    type: EditType
    augmented: bool = False  # made of others: goes before any other does

    @property
    def rank(self) -> tuple[bool, str]:
        """What comes first stays."""
        return self.augmented, self.key


@dataclass(frozen=True)
class SetReject:
    """An edit that a rule over the set takes out, with the evidence."""

    key: str
    reason: str  # duplicate_edit, source_cap, type_cap, or contaminated
    detail: str
    other: str = ""  # key of the edit that is kept instead, or name of the evaluation picture


# Finds edits that evaluation sets hold: evidence by key.
Decontaminate = Callable[[Sequence[EditRow]], Mapping[str, str]]


def set_rejects(
    rows: Sequence[EditRow], config: EditSetConfig, decontaminate: Decontaminate | None = None
) -> list[SetReject]:
    """What the configured rules take out, each edit once, in order of key.

    Contaminated edits go first, then duplicates, then what exceeds the cap of its source; caps by type come last.
    """
    left = sorted(rows, key=lambda row: row.rank)
    rejects: list[SetReject] = []

    def without(found: Sequence[SetReject]) -> list[EditRow]:
        rejects.extend(found)
        gone = {reject.key for reject in found}
        return [row for row in left if row.key not in gone]

    if decontaminate is not None:
        evidence = decontaminate(left)
        found = [
            SetReject(row.key, "contaminated", evidence[row.key], evidence[row.key])
            for row in left
            if row.key in evidence
        ]
        left = without(found)
    if config.duplicates:
        left = without(list(duplicate_edits(left, config)))
    if config.max_per_source is not None:
        left = without(list(over_source_cap(left, config.max_per_source)))
    if config.balance and config.balance_by == "caps":
        left = without(list(over_type_cap(left, config.balance)))
    return sorted(rejects, key=lambda reject: reject.key)


def duplicate_edits(rows: Sequence[EditRow], config: EditSetConfig) -> Iterator[SetReject]:
    """Edits of one type, a like source and a like instruction; what is like an earlier one goes.

    Candidates share a band of the source's hash (one of max_distance + 1 must be equal) and a band of the signature.
    """
    if len(rows) < 2:
        return
    hashes = np.array([row.source_hash for row in rows], np.uint64)
    signatures = np.stack([minhash(row.instruction) for row in rows])
    gone: dict[int, int] = {}
    for part in _hash_bands(hashes, config.max_distance + 1):
        for start in range(0, NUM_HASHES, _ROWS):
            words = signatures[:, start] * np.uint64(0x9E3779B97F4A7C15) + signatures[:, start + 1]
            mixed = (part * np.uint64(0xC2B2AE3D27D4EB4F)) ^ words
            for group in _equal_groups(mixed):
                _compare(group, rows, config, gone)
    for later in sorted(gone):
        kept = gone[later]
        while kept in gone:
            kept = gone[kept]
        yield SetReject(
            rows[later].key, "duplicate_edit", f"like source and instruction as {rows[kept].key}", rows[kept].key
        )


def _hash_bands(hashes: npt.NDArray[np.uint64], count: int) -> Iterator[npt.NDArray[np.uint64]]:
    edges = np.linspace(0, 64, count + 1).astype(int)
    for low, high in pairwise(edges):
        mask = (1 << int(high - low)) - 1
        yield (hashes >> np.uint64(low)) & np.uint64(mask)


def _equal_groups(values: npt.NDArray[np.uint64]) -> Iterator[npt.NDArray[np.intp]]:
    """Indices of equal values, ascending, for values that occur more than once."""
    order = np.argsort(values, kind="stable")
    cuts = np.flatnonzero(np.diff(values[order])) + 1
    yield from (group for group in np.split(order, cuts) if len(group) > 1)


def _compare(group: npt.NDArray[np.intp], rows: Sequence[EditRow], config: EditSetConfig, gone: dict[int, int]) -> None:
    """Mark in `gone` what is like an earlier one of the group that is not marked."""
    kept: list[int] = []
    for later in group.tolist():
        if later in gone:
            continue
        like = next((earlier for earlier in kept if _alike(rows[earlier], rows[later], config)), None)
        if like is None:
            kept.append(later)
        else:
            gone[later] = like


def _alike(first: EditRow, second: EditRow, config: EditSetConfig) -> bool:
    return (
        first.type == second.type
        and (first.source_hash ^ second.source_hash).bit_count() <= config.max_distance
        and similarity(first.instruction, second.instruction) >= config.min_similarity
    )


def over_source_cap(rows: Sequence[EditRow], most: int) -> Iterator[SetReject]:
    """Edits beyond the cap of their source; the kept ones are of as many types as there are."""
    by_source: dict[str, list[EditRow]] = defaultdict(list)
    for row in rows:
        by_source[row.source_id].append(row)
    for source, edits in by_source.items():
        seen: Counter[str] = Counter()
        ranked = []
        for row in sorted(edits, key=lambda row: row.rank):
            ranked.append((row.augmented, seen[row.type], row.key))
            seen[row.type] += 1
        for _, _, key in sorted(ranked)[most:]:
            yield SetReject(key, "source_cap", f"source {source} has {len(edits)} edits, kept are {most}")


def type_caps(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    """The largest numbers of edits by type that stand in the wanted shares; unnamed types share the rest as they are.

    A wanted type that does not occur is left out of the shares.
    """
    wanted = _all_shares(counts, shares)
    total = min((counts[name] / share for name, share in wanted.items() if share > 0), default=0.0)
    return {name: int(total * wanted[name] + 1e-9) for name in counts}


def over_type_cap(rows: Sequence[EditRow], shares: Mapping[str, float]) -> Iterator[SetReject]:
    """Edits beyond the cap of their type, augmented ones and later keys first."""
    caps = type_caps(Counter(row.type for row in rows), shares)
    seen: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: row.rank):
        seen[row.type] += 1
        if seen[row.type] > caps[row.type]:
            yield SetReject(row.key, "type_cap", f"{row.type} has {caps[row.type]} places in the balance")


def type_weights(counts: Mapping[str, int], config: EditSetConfig) -> dict[str, float]:
    """Sampling weight by type that gives the wanted shares, at most `max_weight`; all 1 without a balance.

    A type of weight w is drawn w times as often as its number alone would have it, up to a common factor.
    """
    if not config.balance:
        return dict.fromkeys(counts, 1.0)
    wanted, total = _all_shares(counts, config.balance), sum(counts.values())
    return {name: min(config.max_weight, wanted[name] * total / count) for name, count in counts.items() if count}


def _all_shares(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, float]:
    """Share by occurring type, summing to 1 (or to less where every named share is 0)."""
    present = {name: share for name, share in shares.items() if counts.get(name)}
    others = {name: count for name, count in counts.items() if count and name not in shares}
    rest = max(0.0, 1 - sum(shares.values())) if others else 0.0
    found = present | {name: rest * count / sum(others.values()) for name, count in others.items()}
    total = sum(found.values())
    return {name: found.get(name, 0.0) / total if total else 0.0 for name in counts}
