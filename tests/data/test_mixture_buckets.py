"""Mixtures of filtered sets in several buckets: what a batch holds, once per pass, whatever splits the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamline.config import ConfigError, digest
from dreamline.data.features import Bucket, Rows
from dreamline.data.mixture import Mixture
from dreamline.data.order import Indices, Interleave, shuffled

SQUARE, WIDE, TALL = Bucket(32, 32, (2, 4, 4)), Bucket(64, 32, (2, 4, 8)), Bucket(32, 64, (2, 8, 4))


class Made:
    """Samples in memory: row i of bucket `layout[i]`, whose latents are i; `score` is i / 10, `licence` by turns."""

    text_dim = 3

    def __init__(self, name: str, layout: Sequence[Bucket], edit: bool = False) -> None:
        self.name = self.fingerprint = self.order_key = name
        self.buckets = tuple(sorted(set(layout)))
        self.bucket = np.array([self.buckets.index(bucket) for bucket in layout], dtype=np.int64)
        self.is_edit = np.full(len(layout), edit)
        values = {"scores.score": np.arange(len(layout)) / 10, "licence": ["cc0", "cc-by", None] * len(layout)}
        self.table = pa.table({name: pa.array(value[: len(layout)]) for name, value in values.items()})
        self.columns = tuple(self.table.column_names)

    def column(self, name: str) -> pa.ChunkedArray:
        return self.table.column(name)

    def __len__(self) -> int:
        return len(self.bucket)

    def read(self, rows: Indices) -> Rows:
        (number,) = np.unique(self.bucket[rows])
        shape = self.buckets[number].latent_shape
        latents = torch.stack([torch.full(shape, float(row)) for row in rows])
        text, mask = torch.zeros(len(rows), 1, 3), torch.ones(len(rows), 1, dtype=torch.int64)
        keys = [f"{self.name}-{row}" for row in rows]
        return Rows(keys, keys, torch.from_numpy(self.is_edit[rows]), latents, -latents, text, mask, text, mask)


def made(name: str, square: int, wide: int = 0, tall: int = 0) -> Made:
    layout = np.random.default_rng(0).permutation([0] * square + [1] * wide + [2] * tall)
    return Made(name, [(SQUARE, WIDE, TALL)[number] for number in layout], edit=name == "edit")


def bucket_of(key: str, *sets: Made) -> Bucket:
    name, row = key.rsplit("-", 1)
    (features,) = (features for features in sets if features.name == name)
    return features.buckets[features.bucket[int(row)]]


@given(
    t2i=st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 3)),
    edit=st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 3)),
    weight=st.sampled_from([1.0, 2.0, 0.5]),
    world=st.integers(1, 4),
    micro=st.sampled_from([1, 2]),
    accumulation=st.integers(1, 2),
    resume=st.integers(0, 7),
    text=st.sampled_from([None, "scores.score < 0.4", "licence == 'cc0' or licence is null"]),
)
@settings(max_examples=30, deadline=None)
def test_any_world_batch_and_resume(
    t2i: tuple[int, int, int],
    edit: tuple[int, int, int],
    weight: float,
    world: int,
    micro: int,
    accumulation: int,
    resume: int,
    text: str | None,
) -> None:
    sets, size, steps = (made("t2i", *t2i), made("edit", *edit)), world * micro * accumulation, 24

    def read(seen: int, until: int) -> list[str]:
        """What all workers get, in the order of the global positions; every worker has a mixture of its own."""
        mixtures = [Mixture([(sets[0], 1, text), (sets[1], weight)], 5, size) for _ in range(world)]
        by_position: dict[int, str] = {}
        for step in range(seen // size, until):
            shapes = set()
            for rank, mixture in enumerate(mixtures):
                for part in range(accumulation):
                    start = step * size + (part * world + rank) * micro
                    batch = mixture.batch(range(start, start + micro))
                    by_position |= dict(zip(batch.index.tolist(), batch.keys, strict=True))
                    shapes.add(batch.latents.shape[1:])
                    width, height = batch.time_ids[0].tolist()
                    assert {bucket_of(key, *sets)[:2] for key in batch.keys} == {(width, height)}
                    assert [f"-{int(value)}" for value in batch.latents[:, 0, 0, 0]] == [
                        f"-{key.rsplit('-', 1)[1]}" for key in batch.keys
                    ]
            assert len(shapes) == 1  # all workers together
        assert sorted(by_position) == list(range(seen, until * size))
        return [by_position[position] for position in sorted(by_position)]

    keys = read(0, steps)
    one = Mixture([(sets[0], 1, text), (sets[1], weight)], 5, size)
    assert keys == [key for step in range(steps) for key in one.batch(range(step * size, (step + 1) * size)).keys]
    assert keys[resume * size :] == read(resume * size, steps)
    for number, features in enumerate(sets):
        rows = range(len(features)) if number or text is None else one.components[0].rows
        for bucket in features.buckets:
            cell = [f"{features.name}-{row}" for row in rows if features.buckets[features.bucket[row]] == bucket]
            drawn = [key for key in keys if key in set(cell)]
            for start in range(0, len(drawn) - len(cell) + 1, max(1, len(cell))):
                assert sorted(drawn[start : start + len(cell)]) == sorted(cell)
    if text is not None:
        kept = {f"t2i-{row}" for row in one.components[0].rows}
        assert kept >= {key for key in keys if key.startswith("t2i")}


def test_every_sample_comes_equally_often_whatever_its_bucket() -> None:
    sets = made("t2i", 30, 6, 1), made("edit", 5, 12)
    mixture = Mixture([(sets[0], 3), (sets[1], 1)], 0, 8)
    components, rows = mixture.locate(range(8 * 4000))
    for number, (features, share) in enumerate(zip(sets, (0.75, 0.25), strict=True)):
        counts = np.bincount(rows[components == number], minlength=len(features))
        expected = 8 * 4000 * share / len(features)
        assert np.abs(counts - expected).max() < 16  # two batches
        assert abs(int((components == number).sum()) - 8 * 4000 * share) <= mixture.schedule.error(number) < 8 + 2


def test_plain_mixtures_are_what_they_were() -> None:
    """One bucket, no filter: interleaved over positions, each set shuffled as a whole, under the former fingerprint."""
    sets = made("t2i", 11), made("edit", 7)
    mixture = Mixture([(sets[0], 2), (sets[1], 1)], 3, 8)
    components, ordinals = Interleave([2, 1])(np.arange(300))
    rows = np.empty_like(ordinals)
    for number, features in enumerate(sets):
        where = components == number
        rows[where] = shuffled(ordinals[where], len(features), features.name, 3)
    found = mixture.locate(range(300))
    assert (found[0] == components).all()
    assert (found[1] == rows).all()
    former = {"sets": [["t2i", 2.0], ["edit", 1.0]], "seed": 3, "order": 1}
    assert mixture.fingerprint == Mixture([(sets[0], 2), (sets[1], 1)], 3).fingerprint == digest(former)
    assert mixture.batch([200, 3, 40]).keys == [f"{('t2i', 'edit')[components[i]]}-{rows[i]}" for i in (200, 3, 40)]


def test_buckets_are_never_mixed() -> None:
    mixture = Mixture([(made("t2i", 5, 5), 1)], 0, 4)
    shapes = [mixture.batch(range(start, start + 4)).latents.shape[1:] for start in range(0, 400, 4)]
    assert Counter(shapes) == {(2, 4, 4): 50, (2, 4, 8): 50}
    with pytest.raises(ValueError, match="positions 2 to 9 are of several buckets; ask for those of one global batch"):
        mixture.batch(range(2, 10))
    with pytest.raises(ValueError, match="2 buckets: global_batch_size is needed"):
        Mixture([(made("t2i", 5, 5), 1)], 0)


def test_small_buckets_are_told() -> None:
    sets = made("t2i", 60, 3), made("edit", 40, 0, 1)
    mixture = Mixture([(sets[0], 1), (sets[1], 1)], 0, 8)
    small = {use.bucket: use for use in mixture.small_buckets()}
    assert set(small) == {WIDE, TALL}
    assert small[WIDE].samples == (3, 0)
    assert small[WIDE].share == pytest.approx(0.5 * 3 / 63)
    assert small[WIDE].copies == pytest.approx(8 / 3)
    told = "bucket 64x32: 3 samples, one batch in 42, which holds each of them up to 2.67 times"
    assert str(small[WIDE]) == told
    batches = [mixture.batch(range(start, start + 8)) for start in range(0, 8 * 420, 8)]
    wide = [key for batch in batches for key in batch.keys if bucket_of(key, *sets) == WIDE]
    assert len(wide) == 8 * 10  # they come all the same
    assert max(Counter(wide).values()) - min(Counter(wide).values()) <= 1
    assert not Mixture([(made("t2i", 3), 1)], 0, 8).small_buckets()


def test_a_filter_chooses_samples_and_names_the_sequence() -> None:
    features = made("t2i", 30)
    plain, some = Mixture([(features, 1)], 0), Mixture([(features, 1, "scores.score > 2")], 0)
    all_ = Mixture([(features, 1, "licence is null or licence != ''")], 0)
    assert sorted(some.locate(range(9))[1]) == list(range(21, 30))
    assert len({plain.fingerprint, all_.fingerprint, some.fingerprint}) == 3
    assert some.fingerprint == Mixture([(features, 1, "not (scores.score <= 2.0)")], 0).fingerprint  # the same samples
    assert (plain.locate(range(90))[1] == all_.locate(range(90))[1]).all()
    with pytest.raises(ConfigError, match=r"t2i: filter 'scores.score > 9' keeps none of 30 samples; widen it"):
        Mixture([(features, 1, "scores.score > 9")], 0)
    with pytest.raises(ConfigError, match=r"t2i: filter 'width > 9'.*no column 'width'; .*: licence, scores"):
        Mixture([(features, 1, "width > 9")], 0)


def test_fingerprint_follows_the_batch_where_buckets_do() -> None:
    one, two = made("t2i", 9), made("t2i", 5, 4)
    assert len({Mixture([(one, 1)], 0, size).fingerprint for size in (4, 8)}) == 1
    assert len({Mixture([(two, 1)], 0, size).fingerprint for size in (4, 8)}) == 2


def test_too_many_shapes_are_refused() -> None:
    def shapes(num: int) -> Made:
        return Made("own sizes", [Bucket(8 * (i + 1), 8, (2, 1, i + 1)) for i in range(num)])

    assert len(Mixture([(shapes(200), 1)], 0, 4).buckets) == 200
    with pytest.raises(ConfigError, match=r"201 different shapes, more than 200.*fit.*image\.buckets"):
        Mixture([(shapes(201), 1)], 0, 4)


def test_sets_of_different_models_are_refused() -> None:
    other = Made("edit", [Bucket(32, 32, (2, 8, 8))])
    with pytest.raises(ValueError, match="different models, latents"):
        Mixture([(made("t2i", 3), 1), (other, 1)], 0, 4)
    other.text_dim = 4
    with pytest.raises(ValueError, match=r"text widths differ: \[3, 4\]"):
        Mixture([(made("t2i", 3), 1), (other, 1)], 0, 4)
    with pytest.raises(ValueError, match="t2i: holds no samples"):
        Mixture([(Made("t2i", []), 1)], 0)
