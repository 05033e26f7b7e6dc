"""The tar writer, and the plan of shards: deterministic, sorted, cut at the limits, keys unique."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from data_prep.build.config import ShardConfig
from data_prep.build.plan import DUPLICATE, Group, Refusals, Staged, plan_shards, reject_repeated_keys
from data_prep.tar import TarWriter, record_size

GROUPS = [Group("t2i", False, "64x64"), Group("edit", False, None), Group("edit", True, None)]


def staged(keys: list[str], groups: list[int], sizes: list[int] | None = None) -> Staged:
    count = len(keys)
    numbers = np.arange(count, dtype=np.int64)
    return Staged(
        spans=["000-000000", "000-000001"],
        packs=["packs/a", "packs/b"],
        groups=GROUPS,
        key=np.asarray(keys, "S32"),
        group=np.asarray(groups, np.int64),
        span=numbers % 2,
        row=numbers // 2,
        offset=numbers * 100,
        size=np.full(count, 100, np.int64),
        head=np.full(count, 10, np.int64),
        tar_size=np.asarray(sizes or [1000] * count, np.int64),
    )


def test_members_lie_where_the_writer_says() -> None:
    stream = io.BytesIO()
    tar = TarWriter(stream)
    members = {"txt": b"words", "jpg": bytes(700), "json": b""}
    before = tar.position
    placed = tar.write("0123", members)
    assert tar.position - before == record_size([5, 700, 0])
    tar.write("0124", {"txt": b""})
    tar.close()
    content = stream.getvalue()
    assert len(content) % 10_240 == 0
    for item in placed:
        assert content[item["offset"] : item["offset"] + item["size"]] == members[item["name"]]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["0123.jpg", "0123.json", "0123.txt", "0124.txt"]
        assert {(item.mtime, item.uid, item.mode, item.uname) for item in archive} == {(0, 0, 0o444, "")}
    with pytest.raises(ValueError, match=r"sample k: .* longer than 100 bytes"):
        TarWriter(io.BytesIO()).write("k", {"x" * 100: b""})


def test_sorted_by_group_and_key_and_cut_at_the_limits() -> None:
    keys = ["d", "b", "a", "c", "e", "f"]
    samples = staged(keys, [0, 0, 1, 0, 0, 2], sizes=[1000, 1000, 9999, 1500, 1000, 10])
    numbers = {GROUPS[0]: 7}
    plans = plan_shards(samples, np.ones(6, np.bool_), ShardConfig(max_bytes=2500, max_samples=2), "mine", numbers)
    assert [plan.stem for plan in plans] == [
        "mine-edit-000000",
        "mine-t2i-64x64-000007",
        "mine-t2i-64x64-000008",
        "negatives/mine-edit-000000",
    ]
    assert [len(plan) for plan in plans] == [1, 2, 2, 1]
    assert [plan.number for plan in plans] == [0, 1, 2, 3]
    assert plans[1].offset.tolist() == [100, 300]  # b, c
    assert [plans[1].packs[pack] for pack in plans[1].pack] == ["packs/b", "packs/b"]
    assert numbers[GROUPS[0]] == 9


def test_what_is_not_kept_is_not_planned() -> None:
    samples = staged(["b", "a", "c"], [0, 0, 0])
    refusals = Refusals({1: ("blur", "")})
    (plan,) = plan_shards(samples, refusals.keep(3), ShardConfig(), "mine", {})
    assert plan.offset.tolist() == [0, 200]
    assert plan_shards(staged([], []), np.ones(0, np.bool_), ShardConfig(), "mine", {}) == []


def test_of_equal_keys_the_first_stays_and_a_good_one_before_a_negative() -> None:
    samples = staged(["b", "a", "b", "c", "b", "c"], [0, 0, 0, 2, 0, 1])
    refusals = Refusals()
    reject_repeated_keys(samples, refusals)
    assert sorted(refusals.by_sample) == [2, 3, 4]
    assert {reason for reason, _ in refusals.by_sample.values()} == {DUPLICATE}
    assert "row 0 of span 000-000000" in refusals.by_sample[2][1]
    assert refusals.keep(6).tolist() == [True, True, False, False, False, True]
    empty = Refusals()
    reject_repeated_keys(staged([], []), empty)
    assert not empty.by_sample
