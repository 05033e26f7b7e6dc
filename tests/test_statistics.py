"""Intervals cover what they promise, categories weigh the same, and pairing sharpens."""

import numpy as np
import pytest

from dreamline.statistics import bootstrap_interval, paired_difference, stratified_interval


def test_mean_lies_inside_and_width_falls_with_the_number_of_items() -> None:
    rng = np.random.default_rng(1)
    few, many = (bootstrap_interval(rng.random(num) < 0.3) for num in (50, 5000))
    assert few.low < few.mean < few.high
    assert many.high - many.low < 0.2 * (few.high - few.low)


def test_coverage_is_close_to_the_level() -> None:
    rng = np.random.default_rng(2)
    trials = 300
    hits = 0
    for trial in range(trials):
        low_high = bootstrap_interval(rng.random(150) < 0.6, seed=trial, num=400)
        hits += low_high.low <= 0.6 <= low_high.high
    assert 0.90 <= hits / trials <= 0.985


def test_agrees_with_the_normal_interval_on_many_real_scores() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 2000)
    found = bootstrap_interval(values, num=4000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.005)
    assert found.high == pytest.approx(values.mean() + half, abs=0.005)


def test_same_seed_same_interval_and_equal_values_have_no_width() -> None:
    values = [0, 1, 1, 0, 1]
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval([1, 1, 1]) == (1.0, 1.0, 1.0)


def test_every_category_weighs_the_same() -> None:
    found = stratified_interval({"easy": [1] * 90, "hard": [0] * 10})
    assert found.mean == pytest.approx(0.5)
    assert bootstrap_interval([1] * 90 + [0] * 10).mean == pytest.approx(0.9)


def test_resampling_stays_within_a_category() -> None:
    # Between the categories there is all the spread, within them none: nothing is uncertain.
    assert stratified_interval({"a": [1, 1], "b": [0, 0, 0]}) == (0.5, 0.5, 0.5)


def test_pairing_is_sharper_than_two_single_intervals() -> None:
    rng = np.random.default_rng(5)
    before = rng.random(300) < 0.5
    after = before | (rng.random(300) < 0.1)
    change = paired_difference(before, after)
    assert change.mean == pytest.approx(after.mean() - before.mean())
    assert change.low > 0.0
    single = bootstrap_interval(before)
    assert change.high - change.low < 0.6 * (single.high - single.low)


def test_paired_difference_over_categories() -> None:
    found = paired_difference([0, 0, 0, 1], [1, 1, 1, 1], categories=["x", "x", "x", "y"])
    assert found.mean == pytest.approx(0.5)
    assert paired_difference([0, 1], [0, 1]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "non-empty"),
        (lambda: bootstrap_interval([0.0, float("nan")]), "not finite"),
        (lambda: bootstrap_interval([1.0], level=95), "level"),
        (lambda: stratified_interval({}), "at least one group"),
        (lambda: stratified_interval({"a": [1], "empty": []}), "'empty'"),
        (lambda: paired_difference([1], [1, 0]), "same items"),
        (lambda: paired_difference([1, 0], [1, 0], categories=["x"]), "1 categories for 2"),
    ],
)
def test_refuses_what_it_cannot_average(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
