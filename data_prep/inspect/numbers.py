"""The numbers of a data set: counts by kind, bucket, label and the like, and histograms; whole columns at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.build.statistics import OTHER, UNSTATED
from data_prep.inspect.target import Target
from dreamline.data.index import SampleIndex

COUNTED = ("kind", "bucket", "label", "edit_type", "augmentation", "licence", "source", "format", "split")
LISTED = 100  # values of a count; the rest are counted together
BINS = 16
STEPS = (1, 2, 2.5, 5)  # widths of bins, times a power of ten
ASPECTS = (0.5, 0.6, 0.7, 0.8, 0.95, 1.05, 1.25, 1.43, 1.67, 2.0)  # bounds of classes of width over height
VERSION = 1  # of what `summarise` gives

Values = npt.NDArray[np.float64]


def summarise(target: Target) -> dict[str, Any]:
    """The JSON of a data set.

    Returns:
        `counts`: by column and value, samples and bytes of their members. `histograms`: by name, `edges` (one more than
        `counts`; the first and last of an aspect are 0 and null, for no bound), `counts`, `min`, `max`, `mean`, and
        `missing`, the samples without a value.
    """
    numbers: dict[str, Any] = {
        "schema_version": VERSION,
        "target": target.location,
        "type": target.type,
        "name": target.name,
        "fingerprint": target.fingerprint,
        "num_samples": target.num_samples,
        "num_shards": target.num_shards,
        "num_bytes": target.num_bytes,
        "num_rejected": sum(target.rejected.values()),
        "rejected": dict(target.rejected),
        "facts": dict(target.facts),
    }
    if target.type == "encoded":
        sizes = {name: {"samples": count} for name, count in target.sizes.items()}
        return {**numbers, "counts": {"kind and size": sizes}, "histograms": {}}
    return {**numbers, "counts": _counts(target.index), "histograms": _histograms(target.index)}


def _counts(index: SampleIndex) -> dict[str, dict[str, dict[str, int]]]:
    sizes = _bytes_per_sample(index)
    found = {}
    if "kind" not in index.columns:
        (kind,) = index.kinds or ("t2i",)
        found["kind"] = {kind: {"samples": len(index), "bytes": int(sizes.sum())}}
    for name in COUNTED:
        if name in index.columns:
            values = count_values(index.column(name), sizes)
            if set(values) != {UNSTATED}:
                found[name] = values
    return found


def _bytes_per_sample(index: SampleIndex) -> npt.NDArray[np.int64]:
    """Bytes of the members of each sample."""
    total = np.concatenate([[0], np.cumsum(index.places.size)])
    return np.asarray(total[index.places.first[1:]] - total[index.places.first[:-1]], np.int64)


def count_values(column: Any, sizes: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Samples and bytes by value, the most frequent first; what is empty or missing is not stated."""
    import pyarrow as pa

    table = pa.table({"value": column.cast(pa.string()), "bytes": pa.array(sizes)})
    grouped = table.group_by("value").aggregate([("bytes", "count"), ("bytes", "sum")])
    found: dict[str, dict[str, int]] = {}
    names, counts, totals = (grouped.column(part).to_pylist() for part in ("value", "bytes_count", "bytes_sum"))
    for name, count, total in sorted(zip(names, counts, totals, strict=True), key=lambda row: (-row[1], row[0] or "")):
        entry = found.setdefault((name or UNSTATED) if len(found) < LISTED else OTHER, {"samples": 0, "bytes": 0})
        entry["samples"] += count
        entry["bytes"] += total
    return found


def _histograms(index: SampleIndex) -> dict[str, dict[str, Any]]:
    import pyarrow.compute as pc

    found = {}
    if {"width", "height"} <= set(index.columns):
        width, height = (_numbers(index.column(name)) for name in ("width", "height"))
        found = {"width": histogram(width), "height": histogram(height)}
        with np.errstate(divide="ignore", invalid="ignore"):
            found["aspect"] = _histogram(width / height, np.array([0, *ASPECTS, np.inf]))
    if "text" in index.columns:
        found["text length"] = histogram(_numbers(pc.utf8_length(index.column("text"))))
    scores = [name for name in index.columns if name.startswith("scores.")]
    found |= {name: histogram(_numbers(index.column(name))) for name in scores}
    if "weight" in index.columns:
        found["weight"] = histogram(_numbers(index.column("weight")))
    return {name: values for name, values in found.items() if sum(values["counts"])}


def _numbers(column: Any) -> Values:
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def histogram(values: Values) -> dict[str, Any]:
    """Counts in at most `BINS` bins of a round width; whole numbers get bins of whole numbers."""
    sound = values[np.isfinite(values)]
    return _histogram(values, _edges(sound) if len(sound) else np.array([0.0, 1.0]))


def _histogram(values: Values, edges: Values) -> dict[str, Any]:
    sound = values[np.isfinite(values)]
    counts, _ = np.histogram(sound, edges)
    told: Mapping[str, float | None] = dict.fromkeys(("min", "max", "mean"))
    if len(sound):
        told = {"min": float(sound.min()), "max": float(sound.max()), "mean": float(sound.mean())}
    return {
        "edges": [None if np.isinf(edge) else float(edge) for edge in edges],
        "counts": counts.tolist(),
        **told,
        "missing": len(values) - len(sound),
    }


def _edges(values: Values) -> Values:
    low, high = float(values.min()), float(values.max())
    whole = bool(np.all(values == np.round(values)))
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * largest, 1e-300):  # below that, widths of bins would be 0
        return np.array([low, high + (1.0 if whole else max(largest, 1.0) * 1e-6)])
    rough = (high - low) / BINS
    power = 10.0 ** np.floor(np.log10(rough))
    steps = (step * power * scale for scale in (1, 10) for step in STEPS)
    width = next(step for step in steps if step >= rough * (1 - 1e-9))
    width = max(np.ceil(width), 1.0) if whole else width
    first = int(np.floor(low / width))
    last = int(np.floor(high / width)) + 1
    first -= _bound(first, width) > low
    last += _bound(last, width) <= high
    return np.array([_bound(number, width) for number in range(first, last + 1)])


def _bound(number: int, width: float) -> float:
    return float(f"{number * width:.12g}")  # 0.3, not 3 x 0.1
