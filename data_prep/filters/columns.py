"""The columns that set-level filters work on, one row per candidate, and the evidence that they leave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_prep.filters.candidate import Candidate
from data_prep.filters.captions import words
from data_prep.filters.config import Threshold
from data_prep.record import Problem

SCHEMA = pa.schema(
    [
        ("source_name", pa.string()),
        ("row", pa.string()),
        ("key", pa.string()),
        ("kind", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),
        ("pixel_sha256", pa.string()),
        ("phash", pa.int64()),
        ("phash_mirrored", pa.int64()),
        ("source_sha256", pa.string()),
        ("source_pixel_sha256", pa.string()),
        ("source_phash", pa.int64()),
        ("source_phash_mirrored", pa.int64()),
        ("text", pa.string()),
    ]
)
SCORE = "score_"  # first part of the names of score columns, float64; the rest is the score's name
EMBEDDING = "embedding"  # optional column: lists of float16 of one length, null where a row has none

# One line per reason to drop a row: the row, and what it matched.
EVIDENCE = pa.schema(
    [
        ("source_name", pa.string()),
        ("row", pa.string()),
        ("key", pa.string()),
        ("reason", pa.string()),
        ("kind", pa.string()),  # how it matched: sha256, phash, phash_mirrored, embedding, caption, ...
        ("matched", pa.string()),  # key of a row, or "<evaluation set>:<id>"
        ("distance", pa.float64()),  # bits of a hash; 1 - cosine; 1 - overlap of n-grams
    ]
)


def columns(candidates: Iterable[Candidate], embeddings: NDArray[np.float16] | None = None) -> pa.Table:
    """The table of some candidates, without their pixels. Scores become columns; a missing one is null.

    Args:
        candidates: any number.
        embeddings: [N, D], one row per candidate.
    """
    rows, scores = [], []
    for candidate in candidates:
        fields = {name: getattr(candidate, name) for name in SCHEMA.names if name not in ("kind", "text")}
        rows.append(fields | {"kind": candidate.record.kind, "text": candidate.record.text})
        scores.append({**candidate.record.scores, **candidate.scores})
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    for name in sorted({name for row in scores for name in row}):
        values = [row.get(name) for row in scores]
        table = table.append_column(SCORE + name, pa.array(values, pa.float64(), from_pandas=True))
    if embeddings is not None:
        flat = pa.array(np.ascontiguousarray(embeddings, np.float16).ravel())
        table = table.append_column(EMBEDDING, pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1]))
    return table


def ranked(table: pa.Table) -> pa.Table:
    """Best row first: the largest picture, then the smallest key. The order depends on the rows alone."""
    pixels = pa.array(-_numbers(table, "width") * _numbers(table, "height"))
    order = (
        pa.table({"pixels": pixels, **{name: table[name] for name in ("key", "source_name", "row")}})
        .add_column(0, "index", pa.array(np.arange(table.num_rows)))
        .sort_by([(name, "ascending") for name in ("pixels", "key", "source_name", "row")])
    )
    return table.take(order["index"])


def groups(table: pa.Table, names: dict[tuple[str, ...], int] | None = None) -> NDArray[np.int64]:
    """[N]: rows of different groups are never duplicates. An edit's group is its instruction; other kinds have one.

    Tables that are compared share `names`.
    """
    names = {} if names is None else names
    kinds, texts = table["kind"].to_pylist(), table["text"].to_pylist()
    keys = [(kind, *words(text or "")) if kind == "edit" else (kind,) for kind, text in zip(kinds, texts, strict=True)]
    return np.asarray([names.setdefault(key, len(names)) for key in keys], np.int64)


def hashes(table: pa.Table, name: str) -> NDArray[np.uint64]:
    """[N] perceptual hashes of a column; 0 where there is none."""
    return _numbers(table, name).astype(np.uint64)


def evidence(
    table: pa.Table,
    dropped: NDArray[np.int64],
    reason: str,
    kinds: Sequence[str],
    matched: Sequence[str],
    distance: NDArray[np.float64],
) -> pa.Table:
    """Evidence table: one line for each index in `dropped`."""
    lines = table.select(["source_name", "row", "key"]).take(pa.array(dropped))
    return pa.table(
        [
            *lines.columns,
            pa.array([reason] * len(dropped), pa.string()),
            pa.array(kinds, pa.string()),
            pa.array(matched, pa.string()),
            pa.array(distance, pa.float64()),
        ],
        schema=EVIDENCE,
    )


def without(table: pa.Table, dropped: pa.Table) -> pa.Table:
    """The rows of a table that are not named in an evidence table, in the same order."""
    names = {(line["source_name"], line["row"]) for line in dropped.select(["source_name", "row"]).to_pylist()}
    pairs = zip(table["source_name"].to_pylist(), table["row"].to_pylist(), strict=True)
    return table.filter(pa.array([pair not in names for pair in pairs], pa.bool_()))


def problems(dropped: pa.Table) -> Mapping[tuple[str, str], Problem]:
    """By (source name, row): the problem that an evidence table tells; of several lines the first."""
    found: dict[tuple[str, str], Problem] = {}
    for line in dropped.to_pylist():
        detail = f"{line['matched']} by {line['kind']}, distance {line['distance']:.4g}"
        found.setdefault((line["source_name"], line["row"]), Problem(line["row"], line["reason"], detail))
    return found


def judge_scores(table: pa.Table, thresholds: Sequence[Threshold]) -> list[Problem | None]:
    """Decide on score columns alone: one verdict per row; the first threshold that objects counts."""
    verdicts: list[Problem | None] = [None] * table.num_rows
    rows = table["row"].to_pylist()
    for rule in thresholds:
        column = table[SCORE + rule.score].to_pylist() if SCORE + rule.score in table.column_names else None
        for index, row in enumerate(rows):
            if verdicts[index] is None:
                objection = _objection(rule, None if column is None else column[index])
                verdicts[index] = Problem(row, *objection) if objection else None
    return verdicts


def judge_candidate(candidate: Candidate, thresholds: Sequence[Threshold]) -> Problem | None:
    """The same decision for one candidate."""
    scores = {**candidate.record.scores, **candidate.scores}
    for rule in thresholds:
        if objection := _objection(rule, scores.get(rule.score)):
            return candidate.problem(*objection)
    return None


def _objection(rule: Threshold, value: float | None) -> tuple[str, str] | None:
    if value is None or value != value:
        return ("score_missing", f"no score {rule.score!r}") if rule.on_missing == "reject" else None
    if rule.min is not None and value < rule.min:
        return f"score_{rule.score}", f"{value:.4g} is below {rule.min:g}"
    if rule.max is not None and value > rule.max:
        return f"score_{rule.score}", f"{value:.4g} is above {rule.max:g}"
    return None


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(table[name].cast(pa.int64()).fill_null(0).to_numpy(), np.int64)
