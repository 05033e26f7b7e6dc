"""How sure a score is: bootstrap intervals, also over categories and over paired differences. numpy alone.

All intervals are percentile bootstraps (Efron 1979): resample the items with replacement `num` times and take the
quantiles of the resampled means. Where every value is equal the interval has no width; that says nothing was seen to
vary, not that nothing can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A mean with the bounds of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_interval(values: ArrayLike, level: float = 0.95, seed: int = 0, num: int = 2000) -> Interval:
    """Mean of 0/1 or real scores with its bootstrap interval.

    Args:
        values: [N] scores, N >= 1.
        level: coverage in (0, 1).
        seed: seed of the resampling; the same input gives the same interval.
        num: number of resamples.

    Raises:
        ValueError: no values, values that are not finite, or a level outside (0, 1).
    """
    return stratified_interval({"all": values}, level, seed, num)


def stratified_interval(
    groups: Mapping[str, ArrayLike], level: float = 0.95, seed: int = 0, num: int = 2000
) -> Interval:
    """Mean of the groups' means, every group with the same weight whatever its size, as GenEval's overall score.

    Items are resampled within their own group, so the interval holds for the same mix of categories.

    Args:
        groups: [N_g] scores of each category.
        level, seed, num: as for `bootstrap_interval`.

    Raises:
        ValueError: no groups, an empty group (named), values that are not finite, or a level outside (0, 1).
    """
    if not groups:
        raise ValueError("no scores to average; give at least one group of values")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}; 0.95 is usual")
    rng = np.random.default_rng(seed)
    means, resampled = [], []
    for name in sorted(groups):
        values = _scores(groups[name], name)
        means.append(values.mean())
        resampled.append(values[rng.integers(0, len(values), (num, len(values)))].mean(axis=1))
    low, high = np.quantile(np.mean(resampled, axis=0), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(means)), float(low), float(high))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    categories: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
    num: int = 2000,
) -> Interval:
    """Mean of `b - a` over the same items at the same seeds: what changed from model a to model b.

    Pairing removes the spread between easy and hard items, so the interval is much narrower than the two single ones.
    The difference is significant at `1 - level` when the interval leaves out zero.

    Args:
        a: [N] scores before.
        b: [N] scores after, in the same order.
        categories: [N] names; with them every category counts the same, without them every item does.
        level, seed, num: as for `bootstrap_interval`.

    Raises:
        ValueError: lengths differ, or what `stratified_interval` refuses.
    """
    before, after = _scores(a, "a"), _scores(b, "b")
    if len(before) != len(after):
        raise ValueError(f"paired scores need the same items: a has {len(before)}, b has {len(after)}")
    difference = after - before
    if categories is None:
        return bootstrap_interval(difference, level, seed, num)
    if len(categories) != len(difference):
        raise ValueError(f"{len(categories)} categories for {len(difference)} items; give one for each")
    names = np.asarray(categories)
    return stratified_interval({str(name): difference[names == name] for name in np.unique(names)}, level, seed, num)


def _scores(values: ArrayLike, name: str) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"group {name!r}: expected a non-empty list of scores, got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"group {name!r}: {int((~np.isfinite(scores)).sum())} scores are not finite")
    return scores
