"""Rules over the whole set, on columns alone: what is the same as something else, and what there is too much of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.build.config import BuildConfig
from data_prep.build.embeddings import held_embeddings, wants_embeddings
from data_prep.build.pack import index_name, read_index
from data_prep.build.plan import Refusals, Staged, reject_repeated_keys
from data_prep.build.store import Store, publish_file, scratch_file
from data_prep.build.tables import local_file
from data_prep.edits.preference import JudgedEdit, preference_table, preferences
from data_prep.edits.sets import EditRow, set_rejects, type_weights
from data_prep.edits.vocabulary import edit_type_of
from data_prep.filters.columns import EMBEDDING, EVIDENCE, SCHEMA
from data_prep.filters.config import Decontamination, EmbeddingDuplicates
from data_prep.filters.sets import filter_set
from dreamline.data.collection import CollectionInfo, TableEntry

PUBLISHED = 2**30  # px; as a side it makes what is in the data set already better than anything new
BATCH = 1000  # manifest rows held at a time


@dataclass
class Verdicts:
    """What the rules say."""

    refusals: Refusals = field(default_factory=Refusals)
    weights: NDArray[np.float64] | None = None  # sampling weight per staged sample
    evidence: list[dict[str, Any]] | None = None  # the pairs that decided; None where no rule compares


def judge_together(
    store: Store, prefix: str, staged: Staged, config: BuildConfig, before: CollectionInfo | None
) -> Verdicts:
    """Apply the rules that are configured; keys are unique in any case.

    What the data set holds already takes part in the comparison and always stays.
    """
    verdicts = Verdicts()
    reject_repeated_keys(staged, verdicts.refusals)
    return _judge(store, prefix, staged, config, before, verdicts, 0)


def judge_augmented(
    store: Store,
    prefix: str,
    staged: Staged,
    config: BuildConfig,
    before: CollectionInfo | None,
    verdicts: Verdicts,
    num_inputs: int,
) -> Verdicts:
    """Apply the same rules to samples that were made of others; what has been accepted takes part and stays.

    Args:
        staged: all samples, the augmented ones last.
        verdicts: of the others; not changed.
        num_inputs: number of the others.
    """
    refusals = Refusals(dict(verdicts.refusals.by_sample))
    evidence = None if verdicts.evidence is None else list(verdicts.evidence)
    return _judge(store, prefix, staged, config, before, Verdicts(refusals, evidence=evidence), num_inputs)


def _judge(
    store: Store,
    prefix: str,
    staged: Staged,
    config: BuildConfig,
    before: CollectionInfo | None,
    verdicts: Verdicts,
    since: int,
) -> Verdicts:
    """Judge the samples from a number on."""
    if config.filters.sets:
        lines = _compare(store, prefix, staged, config, before, verdicts.refusals, since)
        verdicts.evidence = [*(verdicts.evidence or []), *lines]
    rules = config.edits.together
    if rules.duplicates or rules.max_per_source is not None or rules.balance:
        edits = list(_edits(store, prefix, staged, verdicts.refusals, since))
        numbers = {edit.key: number for number, edit in edits}
        gone = [reject for reject in set_rejects([edit for _, edit in edits], rules) if numbers[reject.key] >= since]
        for reject in gone:
            verdicts.refusals.add(numbers[reject.key], reject.reason, reject.detail)
        if rules.balance:
            verdicts.weights = _weights(staged, edits, {reject.key for reject in gone}, config)
    return verdicts


def write_evidence(store: Store, verdicts: Verdicts) -> TableEntry | None:
    """The pairs that decided, if there are rules that compare."""
    import pyarrow as pa

    if verdicts.evidence is None:
        return None
    return _publish(store, pa.Table.from_pylist(verdicts.evidence, schema=EVIDENCE), "evidence")


def write_preferences(store: Store, prefix: str, staged: Staged, refusals: Refusals) -> TableEntry | None:
    """Pairs of a negative and the sample that carries out the same instruction on the same source, if there are any."""
    if not any(group.negative for group in staged.groups):
        return None
    chosen = np.flatnonzero(refusals.keep(len(staged)))
    columns = ["key", "kind", "source_sha256", "text", "reason"]
    judged = []
    for span, numbers in staged.by_span(chosen):
        table = read_index(store, index_name(prefix, staged.spans[span]), columns).take(staged.row[numbers])
        judged += [
            JudgedEdit(row["key"], row["source_sha256"], row["text"] or "", row["reason"])
            for row in table.to_pylist()
            if row["kind"] == "edit"
        ]
    pairs = preferences(judged)
    return _publish(store, preference_table(pairs), "preferences") if pairs else None


def _publish(store: Store, table: Any, name: str) -> TableEntry:
    import pyarrow.parquet as pq

    with scratch_file(store) as path:
        pq.write_table(table, path, compression="zstd")
        target, digest, size = publish_file(store, path, f"{name}-{{}}.parquet")
    return TableEntry(name=target, sha256=digest, size=size, rows=table.num_rows)


def _compare(
    store: Store,
    prefix: str,
    staged: Staged,
    config: BuildConfig,
    before: CollectionInfo | None,
    refusals: Refusals,
    since: int,
) -> list[dict[str, Any]]:
    """Refuse samples from a number on; returns the evidence."""
    import pyarrow as pa

    embeddings = wants_embeddings(config)
    others = [SCHEMA.empty_table()]
    if any(not isinstance(rule, EmbeddingDuplicates | Decontamination) for rule in config.filters.sets):
        others += _published(store, before)
    if embeddings:
        others = [_with_embeddings(part) for part in others]
    parts = [*others, *_staged_columns(store, prefix, staged, refusals, embeddings, since)]
    _, evidence = filter_set(pa.concat_tables(parts), config.filters.sets, lambda: held_embeddings(store, before))
    lines = []
    for line in evidence.to_pylist():
        if line["source_name"]:
            continue  # what is accepted would have to go for a new one
        number = int(line["row"])
        detail = f"{line['matched']} by {line['kind']}, distance {line['distance']:.4g}"
        refusals.add(number, line["reason"], detail)
        lines.append(line)
    return _named(store, prefix, staged, lines)


def _staged_columns(
    store: Store, prefix: str, staged: Staged, refusals: Refusals, embeddings: bool, since: int
) -> Iterator[Any]:
    """Samples that are still in, with their number in `staged` for a row name; those before `since` as published."""
    import pyarrow as pa

    own = [name for name in SCHEMA.names if name not in ("source_name", "row")]
    for span, numbers in _by_span(staged, refusals):
        table = read_index(store, index_name(prefix, staged.spans[span]), [*own, EMBEDDING] if embeddings else own)
        table = table.take(staged.row[numbers])
        columns = {name: table.column(name).cast(SCHEMA.field(name).type) for name in own}
        old = numbers < since
        columns["source_name"] = pa.array(np.where(old, "published", "").tolist(), pa.string())
        for side in ("width", "height"):
            columns[side] = pa.array(np.where(old, PUBLISHED, columns[side].to_numpy()), pa.int32())
        columns["row"] = pa.array([str(number) for number in numbers.tolist()], pa.string())
        chosen = pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
        yield _with_embeddings(chosen, table.column(EMBEDDING)) if embeddings else chosen


def _with_embeddings(table: Any, column: Any = None) -> Any:
    """The table with embeddings; what is published has none here, as it is compared by those that are kept with it."""
    import pyarrow as pa

    kind = pa.large_list(pa.float16())  # numbered by 64 bits, as all together may be long
    return table.append_column(EMBEDDING, pa.nulls(len(table), kind) if column is None else column.cast(kind))


def _published(store: Store, before: CollectionInfo | None) -> Iterator[Any]:
    """The samples of the version before, as larger than any other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = [name for name in SCHEMA.names if name not in ("source_name", "width", "height")]
    for entry in before.manifests if before is not None else ():
        with local_file(store, entry.name) as path, pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=kept):
                table = pa.Table.from_batches([batch])
                columns = {name: table.column(name).cast(SCHEMA.field(name).type) for name in kept}
                columns["source_name"] = pa.array(["published"] * len(table), pa.string())
                columns["row"] = columns["key"]
                columns |= {side: pa.array([PUBLISHED] * len(table), pa.int32()) for side in ("width", "height")}
                yield pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def _by_span(staged: Staged, refusals: Refusals) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For each span its samples that are in and are no negatives."""
    chosen = np.flatnonzero(refusals.keep(len(staged)) & ~staged.negative)
    yield from staged.by_span(chosen)


def _edits(store: Store, prefix: str, staged: Staged, refusals: Refusals, since: int) -> Iterator[tuple[int, EditRow]]:
    columns = ["key", "kind", "source_sha256", "source_phash", "text", "label"]
    for span, numbers in _by_span(staged, refusals):
        table = read_index(store, index_name(prefix, staged.spans[span]), columns).take(staged.row[numbers])
        for number, row in zip(numbers.tolist(), table.to_pylist(), strict=True):
            if row["kind"] == "edit":
                kind, text = edit_type_of(row["label"], row["text"]), row["text"] or ""
                picture = (row["source_sha256"], row["source_phash"])
                yield number, EditRow(row["key"], *picture, text, kind, augmented=0 < since <= number)


def _weights(
    staged: Staged, edits: list[tuple[int, EditRow]], gone: set[str], config: BuildConfig
) -> NDArray[np.float64]:
    left = [(number, edit) for number, edit in edits if edit.key not in gone]
    by_type = type_weights(Counter(edit.type for _, edit in left), config.edits.together)
    weights = np.ones(len(staged))
    for number, edit in left:
        weights[number] = by_type[edit.type]
    return weights


def _named(store: Store, prefix: str, staged: Staged, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Evidence with sources and rows in place of sample numbers, in the order of the samples."""
    lines = sorted(lines, key=lambda line: int(line["row"]))
    names: dict[str, dict[str, str]] = {}
    for span, numbers in staged.by_span(np.asarray([int(line["row"]) for line in lines], np.int64)):
        table = read_index(store, index_name(prefix, staged.spans[span]), ["source", "row"]).take(staged.row[numbers])
        for number, row in zip(numbers.tolist(), table.to_pylist(), strict=True):
            names[str(number)] = {"source_name": row["source"], "row": row["row"]}
    return [{**line, **names[line["row"]]} for line in lines]
