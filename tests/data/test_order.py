"""Orders: bijections, exact proportions, random access."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamline.data.order import Interleave, Permutation, shuffled, whole_ratio


@given(size=st.integers(1, 3000), key=st.text(max_size=5))
@settings(max_examples=60, deadline=None)
def test_permutation_is_a_bijection(size: int, key: str) -> None:
    image = Permutation(size, key)(np.arange(size))
    assert np.array_equal(np.sort(image), np.arange(size))


def test_permutation_of_a_huge_range_is_random_access() -> None:
    permutation = Permutation(10**12 + 39, "key")
    positions = np.random.default_rng(0).integers(0, 10**12, 1000)
    image = permutation(positions)
    assert image.min() >= 0
    assert image.max() < 10**12 + 39
    assert np.array_equal(image[500:501], permutation(positions[500:501]))
    assert len(np.unique(image)) == len(np.unique(positions))


def test_permutation_looks_random() -> None:
    size = 12_000
    first = Permutation(size, "a")(np.arange(size))
    second = Permutation(size, "b")(np.arange(size))
    for image in (first, second):
        assert abs(np.corrcoef(np.arange(size), image)[0, 1]) < 0.05
        assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.05
        counts = np.histogram(image[: size // 4], bins=20, range=(0, size))[0]  # the first quarter covers all evenly
        assert counts.min() > 90
        assert counts.max() < 220
    assert np.mean(first == second) < 0.002
    assert np.mean(first == np.arange(size)) < 0.002


@given(size=st.integers(1, 50), epochs=st.integers(1, 4), seed=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_every_sample_once_per_epoch(size: int, epochs: int, seed: int) -> None:
    rows = shuffled(np.arange(size * epochs), size, "fingerprint", seed)
    for epoch in range(epochs):
        assert np.array_equal(np.sort(rows[epoch * size : (epoch + 1) * size]), np.arange(size))


def test_epochs_and_seeds_differ() -> None:
    rows = shuffled(np.arange(200), 100, "fingerprint", 0)
    assert not np.array_equal(rows[:100], rows[100:])
    assert not np.array_equal(rows[:100], shuffled(np.arange(100), 100, "fingerprint", 1))
    assert not np.array_equal(rows[:100], shuffled(np.arange(100), 100, "other", 0))


@given(weights=st.lists(st.integers(1, 30), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_interleave_keeps_quota_at_every_prefix(weights: list[int]) -> None:
    interleave = Interleave(weights)
    length = 2 * interleave.period + 3
    components, ordinals = interleave(np.arange(length))
    shares = np.array(weights) / sum(weights)
    counts = np.cumsum(components[:, None] == np.arange(len(weights)), axis=0)
    assert np.abs(counts - np.arange(1, length + 1)[:, None] * shares).max() < 1
    for i in range(len(weights)):
        assert np.array_equal(ordinals[components == i], np.arange((components == i).sum()))


def test_interleave_is_random_access() -> None:
    interleave = Interleave([0.5, 0.3, 0.2])
    components, ordinals = interleave(np.arange(1000))
    chosen = np.random.default_rng(1).integers(0, 1000, 64)
    assert np.array_equal(interleave(chosen)[0], components[chosen])
    assert np.array_equal(interleave(chosen)[1], ordinals[chosen])
    assert np.array_equal(Interleave([1, 1])(np.arange(6))[0], [0, 1, 0, 1, 0, 1])


def test_weights() -> None:
    assert whole_ratio([0.1, 0.3]) == [1, 3]
    assert whole_ratio([2, 4]) == [1, 2]
    for wrong in ([], [1, 0], [1, -1], [float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="positive"):
            whole_ratio(wrong)
    with pytest.raises(ValueError, match="round them"):
        Interleave([0.1234567, 1])
