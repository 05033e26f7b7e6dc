"""A folder and an S3 prefix keep the same promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.build.store import STAGING, Conflict, Store, open_store, publish_file, scratch_file
from dreamline import storage_s3
from dreamline.config import ConfigError


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "set"))
    bucket = request.getfixturevalue("s3")
    return open_store(f"{bucket}/{tmp_path.name}")


def test_files_by_name(store: Store, tmp_path: Path) -> None:
    assert store.names() == {}
    store.put("a/b.bin", b"12345")
    store.put("c.bin", b"")
    assert store.names() == {"a/b.bin": 5, "c.bin": 0}
    assert store.names("a/") == {"a/b.bin": 5}
    assert store.read("a/b.bin") == b"12345"
    store.put("a/b.bin", b"6789")
    store.fetch("a/b.bin", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"6789"
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert store.names() == {"c.bin": 0}
    with pytest.raises(FileNotFoundError):
        store.read("a/b.bin")


def test_parts_of_files(store: Store) -> None:
    store.put("a.bin", b"0123456789")
    reader = store.ranges()
    assert reader.read("a.bin", 3, 4) == b"3456"
    assert reader.read("a.bin", 10, 0) == b""
    with pytest.raises(OSError, match=r"a\.bin"):
        reader.read("a.bin", 8, 4)
    reader.close()


def test_the_first_writer_wins(store: Store) -> None:
    assert store.put_first("index", b"one")
    assert not store.put_first("index", b"two")
    assert store.read("index") == b"one"


def test_a_version_is_swapped_only_for_the_one_it_was_made_from(store: Store) -> None:
    store.swap("dataset.json", b"1", None)
    with pytest.raises(Conflict, match="another build"):
        store.swap("dataset.json", b"other", None)
    store.swap("dataset.json", b"2", b"1")
    with pytest.raises(Conflict):
        store.swap("dataset.json", b"other", b"1")
    assert store.read("dataset.json") == b"2"


def test_published_files_are_named_by_content(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_s3, "PART_SIZE", 5 * 2**20)  # so that it goes up in parts
    content = bytes(range(256)) * 4 * 6 * 1024
    for _ in range(2):  # the second time it is there already
        with scratch_file(store) as path:
            path.write_bytes(content)
            name, digest, size = publish_file(store, path, "x-{}.bin")
        assert (len(digest), size) == (64, len(content))
        assert name == f"x-{digest[:12]}.bin"
    assert store.read(name) == content
    assert [name for name in store.names() if not name.startswith(STAGING)] == [name]


def test_everything_below_a_folder_goes(store: Store) -> None:
    store.put(f"{STAGING}/plan/a", b"1")
    store.put("kept", b"1")
    store.clear(STAGING)
    assert store.names() == {"kept": 1}


def test_unknown_places() -> None:
    with pytest.raises(ConfigError, match="neither a folder nor"):
        open_store("gs://bucket/x")
    with pytest.raises(ConfigError, match="names no bucket"):
        open_store("s3://")


def test_a_missing_bucket_is_named(s3: str) -> None:
    with pytest.raises(ConfigError, match=r"s3://nowhere/x/.*: there is no such bucket"):
        open_store("s3://nowhere/x").check()
    open_store(f"{s3}/x").check()
