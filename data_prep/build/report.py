"""One HTML page of a data set: what came in, what stayed, why the rest did not, and what it looks like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from data_prep.build.published import read_dataset, read_if_there
from data_prep.build.statistics import MISSING
from data_prep.build.store import Conflict, Store, open_store
from data_prep.build.tables import local_file
from data_prep.build.thumbnail import thumbnail_of
from data_prep.page import bars, data, grid, page
from dreamline.config import ConfigError
from dreamline.data.collection import CollectionInfo
from dreamline.data.manifest import sum_counts

REPORT, NUMBERS = "report.html", "report.json"
BATCH = 1000  # rows held at a time
SCANNED = 20_000  # manifest rows looked at for the pictures


def write_report(location: str, out: Path | None = None, num_shown: int = 16) -> dict[str, Any]:
    """Write the page and, beside it, its numbers as JSON.

    Args:
        location: of the data set.
        out: HTML file; by default report.html and report.json in the data set.
        num_shown: kept pictures shown per source.

    Returns:
        The numbers, and where the page is.

    Raises:
        ConfigError: there is no data set.
    """
    store = open_store(location)
    info = read_dataset(store)
    if info is None:
        raise ConfigError(f"{location}: no data set there; build it first")
    numbers = summarise(info)
    content = _page(info, numbers, _kept(store, info, num_shown), _rejected(store, info)).encode()
    if out is None:
        store.put(REPORT, content)
        store.put(NUMBERS, _json(numbers))
        return {"report": f"{store.location}/{REPORT}", **numbers}
    out.with_suffix(".json").write_bytes(_json(numbers))
    out.write_bytes(content)
    return {"report": str(out), **numbers}


def refresh_report(store: Store, info: CollectionInfo, num_shown: int = 16) -> None:
    """Write the report of a version beside it, unless it is there. Its numbers come last, and tell the version.

    Args:
        store: where the data set lies.
        info: the version that has just been published, or is still.
        num_shown: kept pictures shown per source.
    """
    numbers = summarise(info)
    old_page, old_numbers = read_if_there(store, REPORT), read_if_there(store, NUMBERS)
    if old_page is not None and old_numbers == _json(numbers):
        return
    content = _page(info, numbers, _kept(store, info, num_shown), _rejected(store, info)).encode()
    with suppress(Conflict):  # another build has just published, and reports for itself
        store.swap(REPORT, content, old_page)  # by way of staging, so that a kill leaves nothing behind
        store.swap(NUMBERS, _json(numbers), old_numbers)


def _json(numbers: Mapping[str, Any]) -> bytes:
    return (json.dumps(numbers, indent=1, sort_keys=True) + "\n").encode()


def summarise(info: CollectionInfo) -> dict[str, Any]:
    """The numbers of a version: totals, each build's counts, and histograms."""
    builds = [
        {
            "retry": item.retry,
            "num_inputs": item.num_inputs,
            "num_kept": item.num_kept,
            "num_rejected": item.num_rejected,
            "num_ignored": item.num_ignored,
            "num_augmented": item.num_augmented,
            "rejected_by_reason": item.rejected,
            "missing_scores": item.statistics.get(MISSING, {}),
        }
        for item in info.increments
    ]
    return {
        "name": info.name,
        "fingerprint": info.fingerprint,
        "num_samples": info.num_samples,
        "num_shards": len(info.shards),
        "num_bytes": sum(shard.size for shard in info.shards),
        "num_negatives": sum(shard.samples for item in info.increments for shard in item.negatives),
        "num_rejects": info.rejects.rows,
        "num_failures": info.failures.rows,
        "samples_by_bucket": sum_counts({f"{s.kind} {s.bucket or ''}".strip(): s.samples} for s in info.shards),
        "builds": builds,
        "histograms": info.statistics,
    }


def _kept(store: Store, info: CollectionInfo, num_shown: int) -> dict[str, list[tuple[bytes, str]]]:
    """The first pictures of each source, in the order of the manifests, with their texts."""
    import pyarrow.parquet as pq

    found: dict[str, list[tuple[bytes, str]]] = {}
    reader = store.ranges()
    scanned = 0
    for entry in info.manifests:
        with local_file(store, entry.name) as path, pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=["source", "shard", "text", "members"]):
                scanned += len(batch)
                for row in batch.to_pylist():
                    shown = found.setdefault(row["source"], [])
                    if len(shown) < num_shown:
                        members = {
                            member["name"]: reader.read(row["shard"], member["offset"], member["size"])
                            for member in row["members"]
                        }
                        picture = thumbnail_of(members)
                        shown += [(picture, row["text"])] if picture else []
                if scanned >= SCANNED:
                    break
    reader.close()
    return dict(sorted(found.items()))


def _rejected(store: Store, info: CollectionInfo) -> dict[str, list[tuple[bytes | None, str]]]:
    """For each reason what can be shown of the first rows, with source, row and detail."""
    import pyarrow.parquet as pq

    found: dict[str, list[tuple[bytes | None, str]]] = {}
    texts: Counter[str] = Counter()
    columns = ["source", "row", "reason", "detail", "thumbnail"]
    with local_file(store, info.rejects.name) as path, pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH, columns=columns):
            for row in batch.to_pylist():
                texts[row["reason"]] += row["thumbnail"] is None
                if row["thumbnail"] is not None or texts[row["reason"]] <= 5:
                    told = f"{row['source']}: {row['row']}: {row['detail']}"
                    found.setdefault(row["reason"], []).append((row["thumbnail"], told))
    return dict(sorted(found.items()))


def _page(
    info: CollectionInfo,
    numbers: Mapping[str, Any],
    kept: Mapping[str, Sequence[tuple[bytes | None, str]]],
    rejected: Mapping[str, Sequence[tuple[bytes | None, str]]],
) -> str:
    histograms = {name: values for name, values in numbers["histograms"].items() if not name.startswith("reasons of")}
    funnels = {name: values for name, values in numbers["histograms"].items() if name.startswith("reasons of")}
    reasons = sum_counts(build["rejected_by_reason"] for build in numbers["builds"])
    parts = [
        f"<h1>{escape(info.name)}</h1>",
        f"<p>{info.num_samples:,} samples in {numbers['num_shards']} shards, {numbers['num_bytes'] / 1e6:,.1f} MB; "
        f"{numbers['num_negatives']:,} rejected edits kept as negatives.<br>"
        f"fingerprint <code>{info.fingerprint}</code></p>",
        "<h2>Builds</h2>",
        *(_build(number, build) for number, build in enumerate(numbers["builds"], 1)),
        "<h2>Rejected, by reason</h2>",
        bars(reasons),
        '<div class="columns">',
        *(f"<div><h3>{escape(name)}</h3>{bars(values)}</div>" for name, values in funnels.items()),
        "</div>",
        "<h2>What is in it</h2>",
        '<div class="columns">',
        *(
            f"<div><h3>{escape(name)}</h3>{bars(values)}</div>"
            for name, values in {"samples by bucket": numbers["samples_by_bucket"], **histograms}.items()
        ),
        "</div>",
        "<h2>Kept</h2>",
        *(f"<h3>{escape(source)}</h3>{grid(shown)}" for source, shown in kept.items()),
        "<h2>Rejected</h2>",
        *(f"<h3>{escape(reason)} ({reasons.get(reason, 0)})</h3>{grid(shown)}" for reason, shown in rejected.items()),
        data("numbers", numbers),
    ]
    return page(info.name, parts)


def _build(number: int, build: Mapping[str, Any]) -> str:
    title = f"{number}. build" if build["retry"] is None else f"{number}. retry of {build['retry']} failures"
    counts = {name: build[f"num_{name}"] for name in ("inputs", "kept", "rejected", "ignored", "augmented")}
    return f"<h3>{title}</h3>{bars(counts)}"
