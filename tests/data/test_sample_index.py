"""Opening data sets of every kind: rows, members, columns; and what is wrong is said."""

from __future__ import annotations

import json
import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dreamline.config import ConfigError
from dreamline.data.index import FOLDER_INDEX, open_index
from dreamline.data.manifest import DATASET, MANIFEST
from dreamline.data.places import HEAD
from dreamline.storage import hash_folder


def test_rows_are_found_where_the_tars_have_them(make_set, tmp_path):
    folder = make_set(tmp_path / "set", [3, 0, 5, 1], kind="edit")
    before = hash_folder(folder)
    index = open_index(folder, tmp_path / "cache")
    assert (len(index), index.kinds, index.kind(8), [shard.samples for shard in index.shards]) == (
        9,
        ("edit",),
        "edit",
        [3, 0, 5, 1],
    )
    for row, location in enumerate(index.locate(range(9))):
        assert location.key == index.key(row) == f"key-{row:05d}"
        with tarfile.open(folder / index.shards[location.shard].name) as tar:
            listed = {item.name: (item.offset_data, item.size) for item in tar}
        assert [listed[f"{location.key}.{name}"] for name, _, _ in location.members] == [
            (offset, size) for _, offset, size in location.members
        ]
        assert {member.name for member in location.members} == {"instruction.txt", "json", "source.png", "target.png"}
    assert hash_folder(folder) == before


def test_locating_takes_any_rows_in_any_order_and_refuses_others(make_set, tmp_path):
    index = open_index(make_set(tmp_path / "set", [4, 4]), tmp_path / "cache")
    assert [place.key[-1] for place in index.locate([7, 0, 0, 4])] == ["7", "0", "0", "4"]
    assert index.locate([]) == []
    for row in (-1, 8):
        with pytest.raises(IndexError, match="rows 0 to 7"):
            index.locate([row])


def test_columns_come_as_the_manifest_has_them(make_indexed, tmp_path):
    index = open_index(make_indexed(tmp_path / "set", [4, 3]), tmp_path / "cache")
    assert {"key", "kind", "shard", "members", "text", "scores", "scores.blur"} == set(index.columns)
    assert index.column("text").to_pylist() == [f"text {row}" for row in range(7)]
    assert index.column("scores.blur").to_pylist() == [None, 0.5, None, 1.5, None, 2.5, None]
    assert (index.name, index.kinds) == ("theirs", ("t2i",))
    assert index.member_hashes(2)[0] is None
    assert len(index.member_hashes(2)[1]) == 64
    with pytest.raises(ConfigError, match=r"no column 'scores.sharp'.*scores.blur"):
        index.column("scores.sharp")


def test_it_is_derived_once_and_pickled_by_its_place(make_set, tmp_path, monkeypatch):
    folder = make_set(tmp_path / "set", [3])
    first = open_index(folder, tmp_path / "cache")
    monkeypatch.setattr("dreamline.data.index.derive", None)
    again = open_index(folder, tmp_path / "cache")
    copy = pickle.loads(pickle.dumps(again))
    assert first.locate([0, 1, 2]) == again.locate([0, 1, 2]) == copy.locate([0, 1, 2])
    assert first.layout == copy.layout


def test_on_s3_it_is_the_same(make_set, upload, tmp_path):
    folder = make_set(tmp_path / "set", [3, 2])
    local, remote = open_index(folder, tmp_path / "a"), open_index(upload(folder), tmp_path / "b")
    assert remote.locate(range(5)) == local.locate(range(5))
    assert remote.folder.startswith("s3://")


def test_what_is_no_data_set_or_damaged_is_refused_with_a_cure(make_set, make_indexed, tmp_path):
    with pytest.raises(ConfigError, match="nothing: there is no such folder"):
        open_index(tmp_path / "nothing", tmp_path / "cache")
    with pytest.raises(ConfigError, match="dreamline data index"):
        open_index(tmp_path, tmp_path / "cache")
    folder = make_set(tmp_path / "set", [3])
    (folder / MANIFEST).rename(folder / "away")
    with pytest.raises(ConfigError, match=r"manifest.parquet: missing"):
        open_index(folder, tmp_path / "cache")
    (folder / DATASET).write_text("{")
    with pytest.raises(ConfigError, match="not readable as JSON"):
        open_index(folder, tmp_path / "cache")
    theirs = make_indexed(tmp_path / "theirs", [3])
    values = json.loads((theirs / FOLDER_INDEX).read_text())
    (theirs / FOLDER_INDEX).write_text(json.dumps({**values, "schema_version": 7}))
    with pytest.raises(ConfigError, match=r"schema 7.*dreamline data index"):
        open_index(theirs, tmp_path / "cache")
    values["table"]["sha256"] = "0" * 64
    (theirs / FOLDER_INDEX).write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"index.parquet: is damaged.*data index"):
        open_index(theirs, tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "has 4 rows|have 4 rows"),
        (lambda rows: [*rows, rows[-1]], "more rows than the shards"),
        (lambda rows: rows[::-1], "not in the order of the shards"),
        (lambda rows: [{**rows[0], "members": []}, *rows[1:]], "no members"),
        (
            lambda rows: [{**rows[0], "members": [{**rows[0]["members"][0], "offset": 10**9}]}, *rows[1:]],
            "beyond the end of 0000.tar",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_the_shards_is_refused(change, message, make_set, tmp_path):
    folder = make_set(tmp_path / "set", [3, 2])
    rows = pq.read_table(folder / MANIFEST).to_pylist()
    schema = pq.read_schema(folder / MANIFEST)
    pq.write_table(pa.Table.from_pylist(change(rows), schema=schema), folder / MANIFEST)
    with pytest.raises(ConfigError, match=message):
        open_index(folder, tmp_path / "cache")
    assert not list(Path(tmp_path / "cache" / "index").glob(".*.tmp-*"))


def test_what_somebody_half_removed_is_derived_again(make_set, tmp_path):
    folder = make_set(tmp_path / "set", [3])
    place = open_index(folder, tmp_path / "cache").places.folder
    (place / HEAD).unlink()
    left = place.with_name(f".{place.name}.tmp-1")  # by a process that was killed
    left.mkdir()
    assert open_index(folder, tmp_path / "cache").key(2) == "key-00002"
    assert not left.exists()
