"""What judges single rows: filters, the captioner, scorers, the embedder. Loaded once per process."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_prep.build.caption import Row
from data_prep.filters.candidate import RowFilter
from data_prep.filters.captioner import Captioner
from data_prep.filters.config import Caption, CaptionerConfig, EmbeddingDuplicates, FiltersConfig
from data_prep.filters.rows import open_row_filters
from data_prep.filters.scorers import Embedder, Scorer, open_embedder, open_scorer


@dataclass(frozen=True)
class RowRules:
    """All of it."""

    rows: Sequence[RowFilter]
    texts: Sequence[RowFilter]  # those of `rows` that have to wait for the captioner
    captioner: Captioner | None
    scorers: Sequence[Scorer]
    embedder: Embedder | None


@functools.lru_cache(maxsize=1)
def open_row_rules(config: FiltersConfig, captions: CaptionerConfig | None, prefix: str) -> RowRules:
    """Load what is configured; only once for each build.

    Args:
        config, captions: of the build.
        prefix: of the build's staged files; another one if a file that a rule names has changed.
    """
    del prefix
    texts = [rule for rule in config.rows if captions is not None and isinstance(rule, Caption)]
    embeddings = [rule for rule in config.sets if isinstance(rule, EmbeddingDuplicates)]
    return RowRules(
        rows=open_row_filters([rule for rule in config.rows if rule not in texts]),
        texts=open_row_filters(texts),
        captioner=None if captions is None else Captioner(captions),
        scorers=[open_scorer(rule) for rule in config.scorers],
        embedder=open_embedder(embeddings[0]) if embeddings else None,
    )


def judge_texts(filters: Sequence[RowFilter], rows: Iterator[Row]) -> Iterator[Row]:
    """Judge what has got its final text."""
    for one, problem in rows:
        found = (rule.judge([one.candidate])[0] for rule in filters if problem is None)
        yield one, problem or next((verdict for verdict in found if verdict is not None), None)
