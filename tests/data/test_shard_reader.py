"""Samples by row: every byte, from disk and from S3, verified, within bounds."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dreamline import storage, storage_s3
from dreamline.config import ConfigError
from dreamline.data import shard_cache
from dreamline.data.index import lock, open_index
from dreamline.data.manifest import DATASET
from dreamline.data.shard_cache import CacheConfig
from dreamline.data.shards import REQUEST, WHOLE, ShardReader


def reader_of(folder: str | Path, cache: Path, verify: bool = True, size: int = 2**30) -> ShardReader:
    return ShardReader(open_index(folder, cache), CacheConfig(folder=cache, size=size), verify)


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize(("kind", "side"), [("t2i", 4), ("edit", 4), ("edit", 80)])
def test_all_bytes_come_back_in_the_order_asked_for(kind, side, make_set, make_sample, tmp_path):
    reader = reader_of(make_set(tmp_path / "set", [3, 0, 4], kind, side), tmp_path / "cache")
    size = max(sum(member.size for member in place.members) for place in reader.index.locate(range(7)))
    assert (size > WHOLE) == (side == 80)
    rows = [6, 0, 3, 3, 2]
    assert reader.read(rows) == [make_sample(row, kind, side) for row in rows]
    assert reader.members([5]) == [make_sample(5, kind, side).members()]
    assert reader.read([]) == []
    with pytest.raises(IndexError):
        reader.members([7])


def test_more_shards_than_may_be_open_read_by_many_threads(make_set, make_sample, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_cache, "MAX_OPEN", 3)
    reader = reader_of(make_set(tmp_path / "set", [2] * 20), tmp_path / "cache")
    before = len(os.listdir("/proc/self/fd"))
    rows = np.random.default_rng(0).integers(0, 40, (60, 8))
    with ThreadPoolExecutor(8) as pool:
        for wanted, samples in zip(rows, pool.map(reader.read, rows), strict=True):
            assert samples == [make_sample(row) for row in wanted]
    assert len(os.listdir("/proc/self/fd")) - before <= 3
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read([1]) == reader.read([1])


def test_a_changed_byte_is_noticed_at_first_use_and_after_a_change(make_set, tmp_path):
    folder = make_set(tmp_path / "set", [2, 2])
    damage(folder / "0001.tar", 700)
    reader = reader_of(folder, tmp_path / "cache")
    reader.read([0, 1])
    with pytest.raises(ConfigError, match=r"0001.tar: is damaged.*run the data job again"):
        reader.read([2])
    assert reader_of(folder, tmp_path / "cache", verify=False).members([2])
    damage(folder / "0001.tar", 700)  # as it was
    assert reader.read([2])
    damage(folder / "0000.tar", 512)  # verified before, another time now
    with pytest.raises(ConfigError, match=r"0000.tar: is damaged"):
        reader_of(folder, tmp_path / "cache").read([0])


def test_a_shard_is_hashed_once_on_a_machine(make_set, tmp_path, monkeypatch):
    folder = make_set(tmp_path / "set", [2, 2])
    first, second = (reader_of(folder, tmp_path / "cache") for _ in range(2))
    first.read([0, 3])
    monkeypatch.setattr(shard_cache.hashlib, "file_digest", None)
    assert len(second.read(range(4))) == 4


@pytest.mark.parametrize("verify", [True, False])
def test_a_short_or_missing_shard_is_noticed(verify, make_set, tmp_path):
    folder = make_set(tmp_path / "set", [2, 2])
    reader = reader_of(folder, tmp_path / "cache", verify)
    with (folder / "0000.tar").open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(ConfigError, match=r"0000.tar: is 3000 bytes long, not"):
        reader.read([0])
    (folder / "0001.tar").unlink()
    with pytest.raises(ConfigError, match=r"0001.tar: missing"):
        reader.read([2])


def test_a_shard_cut_short_while_it_is_open_is_noticed(make_set, tmp_path):
    folder = make_set(tmp_path / "set", [2])
    reader = reader_of(folder, tmp_path / "cache")
    reader.read([0])
    os.truncate(folder / "0000.tar", 3000)
    with pytest.raises(ConfigError, match=r"0000.tar: ends before byte"):
        reader.read([1])


def test_remote_shards_are_copied_once_within_bounds(make_set, make_sample, upload, tmp_path, monkeypatch):
    folder = make_set(tmp_path / "set", [2] * 6)
    url, bound = upload(folder), 3 * (folder / "0000.tar").stat().st_size
    fetched: Counter[str] = Counter()
    opened = storage_s3.open_read

    def counted(url, size=storage_s3.READ_SIZE):
        fetched[url.rpartition("/")[2]] += 1
        return opened(url, size)

    monkeypatch.setattr(storage_s3, "open_read", counted)
    monkeypatch.setattr(shard_cache, "MAX_COPIES", 1)
    cache = tmp_path / "cache"
    reader = reader_of(url, cache, size=bound)
    for rows in ([0, 1], [2], [4], [1], [3]):  # three shards have room
        assert reader.read(rows) == [make_sample(row) for row in rows]
    names = [f"{number:04d}.tar" for number in range(6)]
    assert [fetched[name] for name in names] == [1, 1, 1, 0, 0, 0]
    assert reader.read([6]) == [make_sample(6)]  # takes the place of the shard that was used longest ago, 0002.tar
    assert reader.read([0, 2, 4]) == [make_sample(row) for row in (0, 2, 4)]
    assert [fetched[name] for name in names] == [1, 1, 2, 1, 0, 0]
    other = reader_of(url, cache, size=bound)
    assert other.read([0]) == [make_sample(0)]
    assert fetched["0000.tar"] == 1
    assert sum(file.stat().st_size for file in (cache / "shards").iterdir()) <= bound
    with pytest.raises(ConfigError, match=r"cache.size is 100 bytes"):
        reader_of(url, tmp_path / "small", size=100).read([0])


def test_many_readers_share_a_small_cache(make_set, make_sample, upload, tmp_path):
    folder = make_set(tmp_path / "set", [2] * 6)
    url, bound = upload(folder), 2 * (folder / "0000.tar").stat().st_size
    readers = [reader_of(url, tmp_path / "cache", size=bound) for _ in range(4)]
    rows = np.random.default_rng(0).integers(0, 12, (16, 3))
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(lambda i: readers[i % 4].read(rows[i]), range(16))
        for wanted, samples in zip(rows, read, strict=True):
            assert samples == [make_sample(row) for row in wanted]


def test_a_copy_that_was_damaged_is_refused_then_fetched_again(make_set, make_sample, upload, tmp_path):
    url = upload(make_set(tmp_path / "set", [2]))
    reader_of(url, tmp_path / "cache").read([0])
    copy = next((tmp_path / "cache" / "shards").iterdir())
    damage(copy, 700)
    with pytest.raises(ConfigError, match="is damaged"):
        reader_of(url, tmp_path / "cache").read([0])
    assert reader_of(url, tmp_path / "cache").read([0]) == [make_sample(0)]


@pytest.mark.parametrize("apart", [False, True])
def test_without_a_cache_remote_samples_come_by_ranged_requests(
    apart, make_set, make_sample, upload, tmp_path, monkeypatch
):
    if apart:
        monkeypatch.setattr("dreamline.data.shards.REQUEST", -REQUEST)
    folder = make_set(tmp_path / "set", [2, 3], "edit")
    url = upload(folder)
    reader = ShardReader(open_index(url, tmp_path / "cache"))
    assert reader.read([4, 0, 2]) == [make_sample(row, "edit") for row in (4, 0, 2)]
    assert not (tmp_path / "cache" / "shards").exists()
    place = reader.index.locate([3])[0].members[2]
    damage(folder / "0001.tar", place.offset + 60)
    storage.put(f"{url}/0001.tar", folder / "0001.tar")
    with pytest.raises(ConfigError, match=r"0001.tar: sample key-00003, member source.png is damaged"):
        reader.read([3])
    storage.delete(f"{url}/0000.tar")
    with pytest.raises(ConfigError, match=r"0000.tar: missing"):
        reader.read([0])


def test_a_remote_shard_that_became_shorter_is_noticed_without_a_hash(make_set, upload, tmp_path):
    folder = make_set(tmp_path / "set", [2])
    url = upload(folder)
    storage.put(f"{url}/0000.tar", (folder / "0000.tar").read_bytes()[:3000])
    with pytest.raises(ConfigError, match=r"is 3000 bytes long, not"):
        reader_of(url, tmp_path / "cache", verify=False).read([0])


def test_a_copy_that_another_process_renames_or_removes_meanwhile_harms_nobody(
    make_set, make_sample, upload, tmp_path, monkeypatch
):
    url = upload(make_set(tmp_path / "set", [2]))
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter([*listed(path), path / "just-gone"]))
    assert reader_of(url, tmp_path / "cache").read([0]) == [make_sample(0)]


@pytest.mark.parametrize("held", [False, True])
def test_what_a_killed_process_left_makes_room_and_what_is_being_filled_does_not(
    held, make_set, make_sample, upload, tmp_path
):
    folder = make_set(tmp_path / "set", [2])
    url, cache, size = upload(folder), tmp_path / "cache", (folder / "0000.tar").stat().st_size
    left = cache / "shards" / ".0123.tar"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(size))
    with lock(cache / "locks" / ("0123" if held else "other")):
        assert reader_of(url, cache, size=size).read([0]) == [make_sample(0)]
        assert left.exists() == held


def test_what_a_data_set_says_leads_nowhere_outside_the_cache(make_set, upload, tmp_path):
    folder, victim = make_set(tmp_path / "set", [2]), tmp_path / "victim"
    victim.write_text("precious")
    values = json.loads((folder / DATASET).read_text())
    values["shards"][0]["sha256"] = "../../victim"
    (folder / DATASET).write_text(json.dumps(values))
    before = set(tmp_path.iterdir())
    assert reader_of(upload(folder), tmp_path / "cache", verify=False).members([0])
    assert victim.read_text() == "precious"
    assert set(tmp_path.iterdir()) - before == {tmp_path / "cache"}


def test_a_mark_of_another_machine_does_not_count(make_set, tmp_path, monkeypatch):
    folder = make_set(tmp_path / "set", [2])
    reader_of(folder, tmp_path / "cache").read([0])
    found = (folder / "0000.tar").stat()
    damage(folder / "0000.tar", 700)
    os.utime(folder / "0000.tar", ns=(found.st_atime_ns, found.st_mtime_ns))  # as a copy on another disk may be
    monkeypatch.setattr(shard_cache, "gethostname", lambda: "another")
    with pytest.raises(ConfigError, match="is damaged"):
        reader_of(folder, tmp_path / "cache").read([0])
