"""Rules over the whole set, on columns alone: what is the same as something else, and what there is too much of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_prep.build.config import BuildConfig
from data_prep.build.plan import Refusals, Staged, reject_repeated_keys
from data_prep.build.store import Store
from dreamline.data.collection import CollectionInfo, TableEntry


@dataclass
class Verdicts:
    """What the rules say."""

    refusals: Refusals = field(default_factory=Refusals)
    weights: NDArray[np.float64] | None = None  # sampling weight per staged sample
    evidence: TableEntry | None = None  # the pairs that decided


def judge_together(
    store: Store, prefix: str, staged: Staged, config: BuildConfig, before: CollectionInfo | None
) -> Verdicts:
    """Apply the rules that are configured; keys are unique in any case."""
    verdicts = Verdicts()
    reject_repeated_keys(staged, verdicts.refusals)
    return verdicts
