"""Runs the set-level filters of a configuration in their order, each on what the ones before left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa

from data_prep.filters.columns import EVIDENCE, without
from data_prep.filters.config import (
    CaptionDuplicates,
    Decontamination,
    EmbeddingDuplicates,
    ExactDuplicates,
    PerceptualDuplicates,
    SetRule,
)
from data_prep.filters.contamination import contaminated, open_references
from data_prep.filters.duplicates import embedding_duplicates, exact_duplicates, perceptual_duplicates
from data_prep.filters.texts import caption_duplicates


def filter_set(
    table: pa.Table, rules: Sequence[SetRule], held: Callable[[], Iterable[pa.Table]] = tuple
) -> tuple[pa.Table, pa.Table]:
    """Apply set-level rules to a table of `columns.SCHEMA`.

    Args:
        table: what is judged.
        rules: in their order.
        held: samples that stay in any case, in parts with their embeddings: see `embedding_duplicates`.

    Returns:
        the rows that stay, in their order, and the evidence of those that go (`columns.EVIDENCE`; decontamination may
        leave several lines about one row). Which rows go does not depend on the order of the table.

    Raises:
        ConfigError: an evaluation set cannot be read.
        ValueError: embedding duplicates without an embedding column.
    """
    parts = [EVIDENCE.empty_table()]
    for rule in rules:
        parts.append(_apply(table, rule, held))
        table = without(table, parts[-1])
    return table, pa.concat_tables(parts)


def _apply(table: pa.Table, rule: SetRule, held: Callable[[], Iterable[pa.Table]]) -> pa.Table:
    match rule:
        case ExactDuplicates():
            return exact_duplicates(table, rule.of)
        case PerceptualDuplicates():
            return perceptual_duplicates(table, rule.max_distance, rule.mirrored, rule.linkage)
        case EmbeddingDuplicates():
            return embedding_duplicates(table, rule.min_cosine, rule.linkage, held=held())
        case CaptionDuplicates():
            return caption_duplicates(table, rule.min_jaccard, rule.ngram, rule.linkage)
        case Decontamination():
            references = [open_references(item) for item in rule.against]
            return contaminated(table, references, rule.max_distance, rule.ngram, rule.min_overlap)
