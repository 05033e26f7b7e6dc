"""What is no folder of tars, or was not meant as one; what stands in the way of an index."""

from __future__ import annotations

import json

import pytest

from data_prep.index import scan as index_scan
from data_prep.index.run import index_folder
from data_prep.index.scan import STAGING
from dreamline.config import ConfigError
from dreamline.data.index import FolderInfo, open_index
from dreamline.storage import put


def test_what_is_no_folder_of_tars(tars, tmp_path, bucket):
    with pytest.raises(ConfigError, match=r"not a folder of \.tar files"):
        index_folder(str(tmp_path))
    with pytest.raises(ConfigError, match="nothing: there is no such folder"):
        index_folder(str(tmp_path / "nothing"))
    path = tars.write(tmp_path / "a.tar", tars.captioned([1]))
    with pytest.raises(ConfigError, match="name the folder of the tars"):
        index_folder(str(path))
    put(tmp_path / "b.tar.gz", b"x")
    with pytest.raises(ConfigError, match=r"b\.tar\.gz: is a zipped archive.*gunzip"):
        index_folder(str(tmp_path))
    (tmp_path / "b.tar.gz").unlink()
    put(tmp_path / "dataset.json", b"{}")
    with pytest.raises(ConfigError, match="one of ours and needs no index"):
        index_folder(str(tmp_path))
    with pytest.raises(ConfigError, match="no files at all"):
        index_folder(f"{bucket}/nothing")
    with pytest.raises(ConfigError, match="no such bucket"):
        index_folder("s3://there-is-no-such-bucket/x")


def test_an_index_that_is_there_is_replaced_only_if_it_is_ours(tars, tmp_path):
    tars.write(tmp_path / "a.tar", tars.captioned(range(3)))
    first = index_folder(str(tmp_path))
    for content, told in (
        (b"{", "delete it and index again"),
        (b'{"shards": []}', "by another tool.* move it elsewhere"),
    ):
        put(tmp_path / "index.json", content)
        with pytest.raises(ConfigError, match=told):
            index_folder(str(tmp_path))
        assert (tmp_path / "index.json").read_bytes() == content
    older = first.info.model_dump(mode="json") | {"schema_version": 0}
    put(tmp_path / "index.json", json.dumps(older).encode())
    assert index_folder(str(tmp_path)).info == first.info
    (tmp_path / first.info.table.name).write_bytes(b"x")
    tars.write(tmp_path / "b.tar", tars.captioned([9]))
    with pytest.raises(ConfigError, match=r"missing or damaged; delete .*index\.json and index again"):
        index_folder(str(tmp_path))
    (tmp_path / "index.json").unlink()
    assert index_folder(str(tmp_path)).info.num_samples == 4
    assert FolderInfo.model_validate_json((tmp_path / "index.json").read_bytes()).schema_version == 1


def test_numbers_and_names_that_no_table_takes(tars, tmp_path):
    wide = tars.picture(1, "PNG")
    members = [
        *tars.captioned([1]),
        ("a.png", wide[:16] + b"\xff" * 4 + wide[20:]),
        ("a.txt", b"x"),
        ("b.jpg", tars.picture()),
        ("b.json", b'{"caption": "x", "\\ud800": 1, "blur": 2}'),
    ]
    tars.write(tmp_path / "a.tar", members)
    outcome = index_folder(str(tmp_path))
    assert (outcome.info.num_samples, outcome.info.rejected) == (2, {"bad_picture": 1})
    assert open_index(tmp_path).column("scores.blur").to_pylist() == [None, 2.0]


def test_files_that_are_one_sample_by_mistake(tars, tmp_path, monkeypatch):
    monkeypatch.setattr(index_scan, "MEMBERS", 3)
    clips = [(f"clip.{number:04d}.jpg", tars.picture(number)) for number in range(9)]
    tars.write(tmp_path / "a.tar", [*tars.captioned([1]), *clips])
    outcome = index_folder(str(tmp_path))
    assert (outcome.info.num_samples, outcome.info.rejected) == (1, {"too_many_members": 1})
    assert "a key ends at the first dot" in outcome.examples["too_many_members"]


def test_a_glob_is_no_folder(tars, tmp_path):
    tars.write(tmp_path / "in" / "a.tar", tars.captioned([1]))
    with pytest.raises(ConfigError, match="name the folder of the tars"):
        index_folder(str(tmp_path / "in" / "*.tar"))
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.tar"]


def test_what_an_interrupted_run_left_is_removed(tars, tmp_path):
    tars.write(tmp_path / "a.tar", tars.captioned([1]))
    first = index_folder(str(tmp_path))
    names = sorted(path.name for path in tmp_path.iterdir())
    put(tmp_path / "index-000000000000.parquet", b"of the index before")
    put(tmp_path / STAGING / "0.parquet", b"a part")
    assert index_folder(str(tmp_path)).info == first.info
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_folder_may_be_moved_and_is_called_as_it_is(tars, tmp_path, monkeypatch):
    tars.write(tmp_path / "in" / "a.tar", tars.captioned([1]))
    monkeypatch.chdir(tmp_path / "in")
    assert index_folder(".").info.name == "in"
    layout = open_index(".").layout
    assert open_index(tmp_path / "in").layout == layout
    (tmp_path / "in").rename(tmp_path / "out")
    assert open_index(tmp_path / "out").layout == layout
