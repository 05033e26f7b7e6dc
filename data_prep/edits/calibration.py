"""How often each check catches its own fault, and how often it rejects a clean pair.

    python -m data_prep.edits.calibration --json FILE [--quick]

Pairs and faults are made (see `calibration_pairs` and `corruptions`), from the seed alone. All checks run on every
pair, so that a fault that several checks see counts for each of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.edits.calibration_pairs import PHOTO_TYPES, EditPair, photo_pair, scene_pair
from data_prep.edits.checks import EditChecks
from data_prep.edits.config import EditChecksConfig
from data_prep.edits.corruptions import CORRUPTIONS, Corruption
from data_prep.edits.verdict import EditVerdict

# Reasons by the check that gives them; what is in no other belongs to the types.
CHECK_OF = {
    **dict.fromkeys(("no_instruction", "instruction_length", "refusal", "geometry", "identical"), "integrity"),
    **dict.fromkeys(("shifted", "zoomed"), "registration"),
    **dict.fromkeys(("no_change", "change_too_small", "change_too_large", "outside_mask", "scattered"), "change"),
    **dict.fromkeys(("background_colour", "background_structure", "background_noise"), "background"),
    **dict.fromkeys(("blurred", "noisy", "clipped", "blocky", "border_band", "saturation", "seam"), "quality"),
    "foreground_too_small": "foreground",
}
CHECKS = ("integrity", "registration", "change", "background", "quality", "types", "foreground")


@dataclass(frozen=True)
class Size:
    """How many pairs a calibration makes."""

    photos: int  # clean ones, types in turn
    scenes: int
    per_fault: int


FULL, QUICK = Size(180, 60, 30), Size(18, 9, 3)


def clean_pairs(size: Size, seed: int) -> Iterator[EditPair]:
    """Accepted pairs: photographs of all types in turn, then pictures of the scene world."""
    for number in range(size.photos):
        yield photo_pair(np.random.default_rng((seed, 1, number)), PHOTO_TYPES[number % len(PHOTO_TYPES)])
    for number in range(size.scenes):
        yield scene_pair(np.random.default_rng((seed, 2, number)))


def faulty_pairs(fault: Corruption, count: int, seed: int) -> Iterator[EditPair]:
    """Photographs with one fault each, of other numbers than the clean ones."""
    for number in range(count):
        rng = np.random.default_rng((seed, 3, number))
        yield fault.apply(photo_pair(rng, fault.types[number % len(fault.types)]), rng)


def calibrate(checks: EditChecks, size: Size = FULL, seed: int = 0) -> dict[str, Any]:
    """Rates of all checks; plain JSON."""
    began = time.process_time()
    spent, judged = 0.0, 0

    def judge(pair: EditPair, with_mask: bool) -> EditVerdict:
        nonlocal spent, judged
        start = time.process_time()
        mask = pair.mask if with_mask else None
        verdict = checks.judge(pair.source, pair.target, pair.instruction, pair.type, mask, exhaustive=True)
        spent, judged = spent + time.process_time() - start, judged + 1
        return verdict

    clean = [(pair.origin, pair.type, judge(pair, False)) for pair in clean_pairs(size, seed)]
    faults = {
        name: _recall(fault, [judge(pair, fault.with_mask) for pair in faulty_pairs(fault, size.per_fault, seed)])
        for name, fault in CORRUPTIONS.items()
    }
    return {
        "num_clean": {origin: sum(kind == origin for kind, _, _ in clean) for origin in ("photo", "scene")},
        "num_per_fault": size.per_fault,
        "seed": seed,
        "false_rejects": {
            origin: _false_rejects([verdict for kind, _, verdict in clean if kind == origin])
            for origin in ("photo", "scene")
        },
        "false_rejects_by_type": {
            name: float(np.mean([verdict.reason is not None for _, kind, verdict in clean if kind == name]))
            for name in sorted({kind for _, kind, _ in clean})
        },
        "false_reasons": _counts([verdict for _, _, verdict in clean]),
        "recall": faults,
        "measures_of_clean": _quantiles([verdict for _, _, verdict in clean]),
        "pairs_per_cpu_second": judged / max(spent, 1e-9),
        "cpu_seconds": time.process_time() - began,
        "config": checks.config.model_dump(mode="json"),
    }


def _false_rejects(verdicts: Sequence[EditVerdict]) -> dict[str, float]:
    """Share of clean pairs that each check rejects, and that any does."""
    named = [{CHECK_OF.get(reason, "types") for reason in verdict.reasons} for verdict in verdicts]
    total = max(1, len(verdicts))
    return {check: sum(check in names for names in named) / total for check in CHECKS} | {
        "any": sum(bool(names) for names in named) / total
    }


def _recall(fault: Corruption, verdicts: Sequence[EditVerdict]) -> dict[str, Any]:
    """Share that the fault's own reasons name, and that any check rejects."""
    return {
        "own": float(np.mean([bool(fault.reasons & set(verdict.reasons)) for verdict in verdicts])),
        "any": float(np.mean([verdict.reason is not None for verdict in verdicts])),
        "reasons": _counts(verdicts),
        "own_reasons": sorted(fault.reasons),
    }


def _counts(verdicts: Sequence[EditVerdict]) -> dict[str, int]:
    names = [reason for verdict in verdicts for reason in verdict.reasons]
    return {name: names.count(name) for name in sorted(set(names), key=lambda name: (-names.count(name), name))}


def _quantiles(verdicts: Sequence[EditVerdict]) -> dict[str, list[float]]:
    """1 %, 5 %, 50 %, 95 % and 99 % quantile of each measure."""
    found: dict[str, list[float]] = {}
    for verdict in verdicts:
        for name, value in verdict.measures.items():
            found.setdefault(name, []).append(value)
    return {
        name: [round(float(x), 4) for x in np.quantile(values, (0.01, 0.05, 0.5, 0.95, 0.99))]
        for name, values in found.items()
    }


def table(result: dict[str, Any]) -> str:
    """The rates as two Markdown tables."""
    rejects, counts = result["false_rejects"], result["num_clean"]
    lines = [
        f"| check | false rejects, {counts['photo']} photographs | {counts['scene']} scenes |",
        "|---|---|---|",
        *(f"| {name} | {rejects['photo'][name]:.1%} | {rejects['scene'][name]:.1%} |" for name in (*CHECKS, "any")),
        "",
        f"| fault ({result['num_per_fault']} pairs each) | its own reasons | recall by them | recall of the bank |",
        "|---|---|---|---|",
    ]
    for name, row in result["recall"].items():
        reasons = ", ".join(f"`{reason}`" for reason in row["own_reasons"])
        lines.append(f"| {name} | {reasons} | {row['own']:.0%} | {row['any']:.0%} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Calibrate the defaults, print the tables and write all figures."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.edits.calibration", description="Rates of edit checks")
    parser.add_argument("--json", type=Path, required=True, help="file for all figures")
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    cv2.setNumThreads(1)
    result = calibrate(EditChecks(EditChecksConfig.full()), QUICK if options.quick else FULL, options.seed)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    print(f"\n{result['pairs_per_cpu_second']:.1f} pairs of 512 px per CPU-second")


if __name__ == "__main__":
    main()
