"""What a build wrote is read by row, through all its increments, from disk and from S3."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

from data_prep.build.config import BuildConfig
from data_prep.build.run import run_build
from dreamline.data.index import SampleIndex, open_index
from dreamline.data.sample import Sample
from dreamline.data.shard_cache import CacheConfig
from dreamline.data.shards import ShardReader

Make = Callable[..., BuildConfig]


def samples_of(index: SampleIndex, cache: Path) -> list[Sample]:
    reader = ShardReader(index, CacheConfig(folder=cache))
    return reader.read(range(len(index)))


def test_a_build_of_two_increments_is_read_by_row(
    tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path]
) -> None:
    folder, out, cache = tmp_path / "pictures", tmp_path / "out", tmp_path / "cache"
    config = configured(out, pictures(folder, range(5)), shards={"max_samples": 3})
    run_build(config)
    first = open_index(out, cache)
    pictures(folder, range(5, 9))
    outcome = run_build(config)
    index = open_index(out, cache)
    assert (len(first), len(index), index.fingerprint) == (5, 9, outcome.info.fingerprint)
    assert [shard.samples for shard in index.shards] == [3, 2, 3, 1]
    samples = samples_of(index, cache)
    assert {sample.text for sample in samples} == {f"picture {seed:03d}" for seed in range(9)}
    assert [sample.text for sample in samples] == index.column("text").to_pylist()
    assert samples[:5] == samples_of(first, cache)
    inside = []
    for shard in index.shards:
        with tarfile.open(out / shard.name) as tar:
            inside += [item.name for item in tar if item.name.endswith(".jpg")]
    assert [f"{sample.key}.jpg" for sample in samples] == inside


def test_a_build_on_s3_is_read_by_row(
    tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path], s3: str
) -> None:
    folder = pictures(tmp_path / "pictures", range(4))
    run_build(configured(tmp_path / "out", folder))
    run_build(configured(f"{s3}/read/out", folder))
    local, remote = open_index(tmp_path / "out", tmp_path / "a"), open_index(f"{s3}/read/out", tmp_path / "b")
    assert local.fingerprint == remote.fingerprint
    assert samples_of(remote, tmp_path / "b") == samples_of(local, tmp_path / "a")
