"""Scorers: models that give numbers about candidates, behind one protocol. What to do about them, thresholds say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_prep.filters import pixels
from data_prep.filters.candidate import Candidate
from data_prep.filters.config import Aesthetic, Classifier, EmbeddingDuplicates, PixelScores, Rubric, Similarity
from data_prep.filters.config import ScorerRule as Rule

MISSING = float("nan")  # a score that could not be had


class Scorer(Protocol):
    """Gives one or more numbers per candidate; the same ones, up to rounding, whatever the batch."""

    @property
    def name(self) -> str:
        """Of the scorer; its scores bear it too, alone or as first part."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever scores may: digest of the weights, and of the prompt where there is one."""
        ...

    @property
    def missing(self) -> Counter[str]:
        """How many scores could not be had so far, by reason; each is NaN where it should be."""
        ...

    def score(self, batch: Sequence[Candidate]) -> dict[str, list[float]]:
        """Scores by name, one value per candidate, NaN where there is none."""
        ...


class Embedder(Protocol):
    """Gives one vector per candidate."""

    @property
    def version(self) -> str:
        """Digest of the weights."""
        ...

    def embed(self, batch: Sequence[Candidate]) -> NDArray[np.float16]:
        """[B, D], of unit length."""
        ...


@dataclass(frozen=True)
class PixelScorer:
    """The weight-free measures of pixels.py as scores; of an edit of its target."""

    config: PixelScores
    name: str = "pixels"
    version: str = "1"
    missing: Counter[str] = field(default_factory=Counter)

    def score(self, batch: Sequence[Candidate]) -> dict[str, list[float]]:
        """One list per measure."""
        greys = [pixels.luma(candidate.image) for candidate in batch]
        return {name: [pixels.MEASURES[name](grey) for grey in greys] for name in self.config.measures}


def open_scorer(rule: Rule) -> Scorer:
    """Build a scorer, and load its model.

    Raises:
        ConfigError: weights are missing, or not those that the configuration names.
    """
    match rule:
        case PixelScores():
            return PixelScorer(rule)
        case Rubric():
            from data_prep.filters.rubric import RubricScorer

            return RubricScorer(rule)
        case Aesthetic() | Classifier() | Similarity():
            from data_prep.filters import models

            return models.open_model_scorer(rule)


def open_embedder(rule: EmbeddingDuplicates) -> Embedder:
    """Build the embedder of embedding duplicates.

    Raises:
        ConfigError: as for `open_scorer`.
    """
    from data_prep.filters.models import ImageEmbedder

    return ImageEmbedder(rule)


def why_missing(scorers: Sequence[Scorer]) -> Counter[str]:
    """How many scores could not be had so far, by "<scorer>: <reason>"."""
    return Counter({f"{scorer.name}: {why}": count for scorer in scorers for why, count in scorer.missing.items()})


def scored(scorers: Sequence[Scorer], batch: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with the scores of all scorers added; a missing score is left out.

    Raises:
        ValueError: a scorer gave another number of values than there are candidates.
    """
    if not batch:
        return []
    found: list[dict[str, float]] = [dict(candidate.scores) for candidate in batch]
    for scorer in scorers:
        for name, values in scorer.score(batch).items():
            if len(values) != len(batch):
                raise ValueError(f"scorer {scorer.name}: {len(values)} values of {name!r} for {len(batch)} candidates")
            for scores, value in zip(found, values, strict=True):
                if value == value:
                    scores[name] = float(value)
    return [replace(candidate, scores=scores) for candidate, scores in zip(batch, found, strict=True)]
