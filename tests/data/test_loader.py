"""The sequence of samples: each once per pass, whatever reads it; stopped and resumed anywhere."""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamline import storage_s3
from dreamline.config import ConfigError
from dreamline.data.index import open_index
from dreamline.data.loader import Loader, read_ahead
from dreamline.data.order import WindowedOrder
from dreamline.data.sequence import SampleSequence
from dreamline.data.shard_cache import CacheConfig
from dreamline.data.shards import ShardReader

SIZES = [5, 0, 7, 3, 9, 1, 4]  # samples of the shards


@pytest.fixture(scope="module")
def sequence(make_set, tmp_path_factory):
    """Makes sequences over one data set."""
    place = tmp_path_factory.mktemp("loader")
    folder, cache = make_set(place / "set", SIZES), CacheConfig(folder=place / "cache")

    @functools.cache
    def make(seed: int = 0, window: int | None = None) -> SampleSequence:
        return SampleSequence(ShardReader(open_index(folder, cache.folder), cache), seed, window)

    return make


def numbers(samples) -> list[int]:
    return [sample.facts["n"] for sample in samples]


def take(loader: Loader, steps: int) -> list[list[int]]:
    """What a worker gets in some steps."""
    wanted, found = steps * len(loader.parts(0)), []
    for batch in loader:
        found.append(numbers(batch))
        if len(found) == wanted:
            return found
    return found


def global_order(source, batch, worlds, steps, workers) -> list[int]:
    """The global sequence of a run that is stopped after some steps and goes on with other numbers of workers."""
    order: list[int] = []
    state = None
    for world, num in zip(worlds, steps, strict=True):
        ranks = []
        for rank in range(world):
            loader = Loader(source, batch, rank=rank, world_size=world, workers=workers, ahead=3)
            if state is not None:
                loader.load_state_dict(state)
            ranks.append(take(loader, num) if num else [])
            if rank == world - 1:
                final = loader.state_dict()
        state = final
        for step in range(num):
            for rank in ranks:
                order += rank[step]
    return order


@given(
    worlds=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    steps=st.lists(st.integers(0, 6), min_size=3, max_size=3),
    batch=st.integers(4, 13),
    workers=st.integers(0, 3),
    seed=st.integers(0, 3),
    window=st.sampled_from([None, 1, 2, 3, 20]),
)
@settings(max_examples=40, deadline=None)
def test_any_workers_batches_and_stops_give_the_same_sequence_with_every_sample_once_a_pass(
    worlds, steps, batch, workers, seed, window, sequence
):
    source = sequence(seed, window)
    steps = steps[: len(worlds)]
    order = global_order(source, batch, worlds, steps, workers)
    assert len(order) == batch * sum(steps)
    assert order == numbers(source.batch(range(len(order))))
    size = sum(SIZES)
    for start in range(0, len(order) - size + 1, size):
        assert sorted(order[start : start + size]) == list(range(size))


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(sum),
    width=st.integers(1, 13),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_a_windowed_pass_holds_every_row_once_and_stays_in_its_window(sizes, width, seed):
    order, size = WindowedOrder(sizes, width, "f", seed), sum(sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    seen = []
    for epoch in range(2):
        rows = order(np.arange(size) + epoch * size)
        assert sorted(rows) == list(range(size))
        assert [int(order(np.array([i + epoch * size]))[0]) for i in (0, size - 1)] == [rows[0], rows[-1]]
        shards = owner[rows]
        held = order.shards(np.array([epoch * size]))
        assert shards[0] in held[:width]
        first = {shard: int(np.flatnonzero(shards == shard)[0]) for shard in set(shards.tolist())}
        last = {shard: int(np.flatnonzero(shards == shard)[-1]) for shard in set(shards.tolist())}
        open_at_once = max(sum(first[s] <= i <= last[s] for s in first) for i in range(size))
        assert open_at_once <= width
        following = owner[order(np.arange(size) + (epoch + 1) * size)][0]
        assert following in order.shards(np.array([epoch * size + size - 1]))
        seen.append(rows.tolist())
    if size > 20:
        assert seen[0] != seen[1]


def test_two_runs_are_identical_and_seeds_differ(sequence):
    assert take(Loader(sequence(1), 4), 9) == take(Loader(sequence(1), 4, workers=3), 9)
    assert take(Loader(sequence(1), 4), 9) != take(Loader(sequence(2), 4), 9)
    assert take(Loader(sequence(1, window=2), 4), 9) != take(Loader(sequence(1), 4), 9)


def test_processes_give_what_threads_give(sequence):
    threads = take(Loader(sequence(5, 2), 8, micro_batch_size=2), 3)
    assert take(Loader(sequence(5, 2), 8, micro_batch_size=2, workers=2, processes=True), 3) == threads


def test_windows_over_s3_fetch_each_shard_once_the_next_ones_ahead(make_set, upload, tmp_path, monkeypatch):
    folder = make_set(tmp_path / "set", [6] * 8)
    url, size = upload(folder), (folder / "0000.tar").stat().st_size
    fetched: Counter[str] = Counter()
    opened = storage_s3.open_read

    def counted(url, size=storage_s3.READ_SIZE):
        fetched[url.rpartition("/")[2]] += 1
        return opened(url, size)

    cache = CacheConfig(folder=tmp_path / "cache", size=3 * 2 * size)
    source = SampleSequence(ShardReader(open_index(url, cache.folder), cache), 0, window=2)
    monkeypatch.setattr(storage_s3, "open_read", counted)
    order = [number for batch in take(Loader(source, 4, workers=2, ahead=1), 6) for number in batch]
    assert len(set(order)) == 24
    source.close()
    assert set(fetched.values()) == {1}
    assert len(fetched) >= 6  # of the windows that were read and the next one
    assert len(list((cache.folder / "shards").iterdir())) <= 6
    with pytest.raises(ConfigError, match=r"three windows of 3 shards take .* raise it, or make the windows smaller"):
        SampleSequence(source.reader, 0, window=3)


def test_micro_batches_are_dealt_out_as_the_training_loop_does():
    loader = Loader(Positions(), 12, micro_batch_size=2, rank=1, world_size=3)
    assert loader.parts(24) == [range(26, 28), range(32, 34)]
    assert [list(Loader(Positions(), 7, rank=rank, world_size=3).parts(0)[0]) for rank in range(3)] == [
        [0, 1],
        [2, 3],
        [4, 5, 6],
    ]


class Positions:
    """Says what it was asked for, after a while that differs."""

    def __init__(self, **identity):
        self.identity = {"fingerprint": "f", "seed": 1, "mixture": {"a": 1.0}} | identity
        self.asked: list[range] = []

    def batch(self, positions: range) -> list[int]:
        self.asked.append(positions)
        time.sleep(0.002 * (positions.start % 3))
        return list(positions)


def test_the_state_is_what_was_handed_out_not_what_was_read():
    source = Positions()
    loader = Loader(source, 4, micro_batch_size=2, workers=2, ahead=5)
    batches = iter(loader)
    assert loader.state_dict()["samples_seen"] == 0
    assert next(batches) == [0, 1]
    assert loader.state_dict()["samples_seen"] == 0  # half of the global batch
    assert next(batches) == [2, 3]
    assert loader.state_dict()["samples_seen"] == 4
    assert len(source.asked) > 2
    batches.close()
    assert next(iter(loader)) == [4, 5]


@pytest.mark.parametrize(
    ("change", "batch", "message"),
    [
        ({"fingerprint": "g"}, 4, "fingerprint was 'f', is 'g'"),
        ({"seed": 2}, 4, "seed was 1, is 2"),
        ({"mixture": {"a": 2.0}}, 4, r"mixture was \{'a': 1.0\}, is \{'a': 2.0\}"),
        ({}, 8, "global_batch_size was 4, is 8"),
        ({"order": "windows"}, 4, "order was None, is 'windows'"),
    ],
)
def test_the_state_of_another_sequence_is_refused_and_the_difference_named(change, batch, message):
    loader = Loader(Positions(), 4)
    next(iter(loader))
    with pytest.raises(ConfigError, match=message):
        Loader(Positions(**change), batch).load_state_dict(loader.state_dict())
    other = Loader(Positions(), 4, world_size=2, rank=1, workers=0)
    other.load_state_dict(loader.state_dict())
    assert next(iter(other)) == [6, 7]


def test_what_cannot_be_dealt_out_is_refused():
    with pytest.raises(ConfigError, match="at least one sample"):
        Loader(Positions(), 2, world_size=3)
    with pytest.raises(ConfigError, match="no multiple of micro_batch_size 3 times 2 workers"):
        Loader(Positions(), 8, micro_batch_size=3, world_size=2)


def test_errors_come_in_their_place_and_nothing_is_left_running():
    def fail(number: int) -> int:
        if number == 3:
            raise OSError("gone")
        return number

    found = []
    with pytest.raises(OSError, match="gone"):
        found.extend(read_ahead(fail, range(10), workers=2, ahead=4))
    assert found == [0, 1, 2]
    found = []
    for number in read_ahead(fail, range(3), workers=2, ahead=8):
        found.append(number)
    assert found == [0, 1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_memory_of_a_large_set_stays_flat(tmp_path: Path):
    """A million rows in a windowed and in the full order: tables as long as the list of shards."""
    import tracemalloc

    order = WindowedOrder([1000] * 1000, 32, "f", 0)
    tracemalloc.start()
    for start in range(0, 10**6, 10**5):
        order(np.arange(start, start + 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000


def test_threads_of_several_passes_do_not_forget_for_each_other():
    class Cleared(dict):  # by another thread, at once
        def __setitem__(self, key, value):
            pass

    order = WindowedOrder(SIZES, 2, "f", 0)
    expected = order(np.arange(20)).tolist()
    order._passes = Cleared()
    assert order(np.arange(20)).tolist() == expected


def test_what_is_fetched_ahead_does_not_keep_a_process_from_ending(sequence, monkeypatch):
    held: list[int] = []
    monkeypatch.setattr(ShardReader, "hold", lambda self, shards: held.extend(shards))
    for ends in (False, True):
        if ends:
            monkeypatch.setattr(threading, "main_thread", threading.Thread)  # one that does not run
        source = SampleSequence(sequence(0, 2).reader, 0, 2)
        source.batch(range(2))
        source.close()
        assert bool(held) == (not ends)
        held.clear()
