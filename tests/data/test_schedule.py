"""Which component and bucket stand where: exact shares, every sample once per pass, any position at once."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamline.data.order import Interleave
from dreamline.data.schedule import Schedule, Split


def positions(*bounds: int) -> np.ndarray:
    return np.arange(*bounds, dtype=np.int64)


@given(weights=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_split_is_exact(weights: list[int], seed: int) -> None:
    split, total = Split(weights), sum(weights)
    classes, ordinals = split(positions(2 * total))
    counts = np.cumsum(classes[:, None] == np.arange(len(weights)), axis=0)
    assert counts[total - 1].tolist() == weights
    assert (ordinals == counts[np.arange(2 * total), classes] - 1).all()
    away = np.abs(counts - np.arange(1, 2 * total + 1)[:, None] * np.array(weights) / total).max(axis=0)
    bounds = [float(split.error([int(i == j) for j in range(len(weights))])) for i in range(len(weights))]
    assert (away <= np.array(bounds) + 1e-9).all()
    assert max(bounds) < (1 if len(weights) <= 3 else 1.7)
    order = np.random.default_rng(seed).permutation(2 * total)
    again, numbers = split(order)
    assert (again == classes[order]).all()
    assert (numbers == ordinals[order]).all()


def test_split_of_weights_beyond_64_bits() -> None:
    weights = [3 * 10**30 + 1, 10**30, 10**12]
    split = Split(weights)
    start = 10**11
    classes, ordinals = split(positions(start, start + 1000))
    assert classes.dtype == ordinals.dtype == np.int64
    assert abs(int((classes == 0).sum()) - 750) <= 1
    assert (np.diff(ordinals[classes == 0]) == 1).all()
    assert abs(int(ordinals[classes == 1][0]) - start / 4) < 2
    with pytest.raises(ValueError, match="positive"):
        Split([1, 0])
    with pytest.raises(ValueError, match="positive"):
        Split([])


def test_many_sets_whose_sizes_have_no_common_divisor() -> None:
    """Their least common multiple is beyond what a float holds."""
    counts = [{0: 10**9 + 2 * i + 1, 1: 10**9 + 7} for i in range(60)]
    schedule = Schedule(counts, [1.0] * 60, 4)
    assert schedule.total > 1e308
    _, components, _ = schedule(positions(4000))
    assert np.abs(np.bincount(components, minlength=60) - 4000 / 60).max() < 10


COUNTS = st.dictionaries(st.integers(0, 7), st.integers(1, 300), min_size=1, max_size=8)


@given(
    counts=st.lists(COUNTS, min_size=1, max_size=3),
    weights=st.lists(st.sampled_from([1.0, 2.0, 0.5, 0.3]), min_size=3, max_size=3),
    size=st.sampled_from([1, 2, 6, 16]),
)
@settings(max_examples=60, deadline=None)
def test_schedule(counts: list[dict[int, int]], weights: list[float], size: int) -> None:
    weights = weights[: len(counts)]
    schedule = Schedule(counts, weights, size)
    batches = 400
    buckets, components, draws = schedule(positions(batches * size))
    by_batch = buckets.reshape(batches, size)
    assert (by_batch == by_batch[:, :1]).all()  # never mixed
    wholes = [Fraction(str(weight)) / sum(Fraction(str(weight)) for weight in weights) for weight in weights]
    for c, count in enumerate(counts):
        for bucket, num in count.items():
            cell = (components == c) & (buckets == bucket)
            assert draws[cell].tolist() == list(range(int(cell.sum())))  # each draw once, in turn
            # As often as the other samples of its component: its share is weight * count / total.
            share = wholes[c] * num / sum(count.values())
            assert schedule.mix[bucket][c] * schedule.share(bucket) == share
        drawn = np.cumsum(components == c)[size - 1 :: size]
        away = np.abs(drawn - np.arange(1, batches + 1) * size * float(wholes[c])).max()
        assert away <= float(schedule.error(c)) + 1e-6
        assert set(buckets[components == c]) <= set(count)
    for bucket in {bucket for count in counts for bucket in count}:
        came = np.cumsum(by_batch[:, 0] == bucket)
        assert np.abs(came - np.arange(1, batches + 1) * float(schedule.share(bucket))).max() < 3


def test_pairs_of_components_are_exact_to_about_a_batch() -> None:
    drawn = np.random.default_rng(7)

    def counts(buckets: int) -> dict[int, int]:
        kept = {b: int(10 ** drawn.uniform(0, 6)) for b in range(buckets) if drawn.random() < 0.8}
        return kept or {0: 1}

    bounds = []
    for _ in range(300):
        buckets = int(drawn.integers(2, 18))
        schedule = Schedule([counts(buckets), counts(buckets)], [1.0, float(drawn.choice([1, 3, 0.25, 10]))], 1)
        bounds.append(float(schedule.between.error([schedule.mix[bucket][0] for bucket in schedule.buckets])))
    half, nine_tenths, worst = np.quantile(bounds, [0.5, 0.9, 1])
    print(f"batches: half {half:.2f}, nine in ten {nine_tenths:.2f}, worst {worst:.2f}")
    assert nine_tenths < 1
    assert worst < 1.2


def test_one_bucket_is_the_plain_interleave() -> None:
    schedule, plain = Schedule([{4: 10}, {4: 7}, {4: 3}], [1, 3, 0.5], 8), Interleave([1, 3, 0.5])
    buckets, components, draws = schedule(positions(500))
    expected, ordinals = plain(positions(500))
    assert (components == expected).all()
    assert (draws == ordinals).all()
    assert set(buckets) == {4}
    assert schedule.error(0) == 1


def test_far_positions_are_found_at_once() -> None:
    counts = [{b: 10**6 + 37 * b for b in range(9)}, {b: 3 * 10**5 + 1001 * b for b in range(2, 11)}]
    schedule = Schedule(counts, [1, 1], 1024)
    start = 10**12 // 1024
    buckets, components, draws = schedule(positions(start * 1024, (start + 50) * 1024))
    assert len(set(buckets)) > 3
    share = float(schedule.mix[int(buckets[0])][0] * schedule.share(int(buckets[0])))
    assert abs(draws[(components == 0) & (buckets == buckets[0])][0] / (start * 1024) / share - 1) < 1e-4
    _, near, _ = schedule(positions(200 * 1024))
    assert abs(np.mean(near == 0) - 0.5) * 200 < 1  # to one batch
