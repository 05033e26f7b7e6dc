"""Folders of pictures, and the scene world."""

from __future__ import annotations

import os

import pytest

from data_prep.record import Problem
from data_prep.sources import folder
from data_prep.sources.reader import open_source
from dreamline.config import ConfigError


@pytest.fixture
def pictures(make, tmp_path):
    """a_cat.jpg, sub/ö b.PNG, sub/c.webp and what is no picture."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a_cat.jpg").write_bytes(make.picture(1))
    (tmp_path / "sub" / "ö b.PNG").write_bytes(make.picture(2, "PNG"))
    (tmp_path / "sub" / "c.webp").write_bytes(make.picture(3, "WEBP"))
    (tmp_path / "notes.md").write_text("nothing")
    (tmp_path / ".hidden.jpg").write_bytes(b"unfinished")
    return tmp_path


def reasons(found):
    return [row.reason if isinstance(row, Problem) else "ok" for row in found]


def test_captions_from_names_or_none(make, pictures):
    found = make.read_all(kind="folder", path=str(pictures), caption="filename", licence="CC0")
    assert [(row.row, row.text) for row in found] == [
        ("a_cat.jpg", "a cat"),
        ("sub/c.webp", "c"),
        ("sub/ö b.PNG", "ö b"),
    ]
    assert found[0].image.content == make.picture(1)
    assert found[0].provenance.licence == "CC0"
    for caption in ({"caption": "none"}, {}):
        assert [row.text for row in make.read_all(kind="folder", path=str(pictures), **caption)] == [None] * 3
    (found,) = make.read_all(kind="folder", path=str(pictures / "sub" / "*.webp"), caption="filename")
    assert (found.row, found.text) == ("c.webp", "c")
    (found,) = make.read_all(kind="folder", path=str(pictures / "a_cat.jpg"), caption="filename")
    assert found.text == "a cat"


def test_captions_from_files_beside(make, pictures):
    (pictures / "a_cat.txt").write_text(" a grey cat\n")
    (pictures / "sub" / "c.json").write_text('{"caption": "a C", "license": "CC-BY-4.0", "author": "me", "x": 1}')
    (pictures / "sub" / "ö b.json").write_text("{")
    found = make.read_all(kind="folder", path=str(pictures))
    assert reasons(found) == ["ok", "ok", "bad_row"]
    assert [row.text for row in found[:2]] == ["a grey cat", "a C"]
    assert (found[1].provenance.licence, found[1].provenance.author) == ("CC-BY-4.0", "me")
    (pictures / "sub" / "ö b.txt").write_bytes(b"\xff")
    (pictures / "sub" / "ö b.json").unlink()
    assert reasons(make.read_all(kind="folder", path=str(pictures), caption="sidecar")) == ["ok", "ok", "not_utf8"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_captions_from_metadata(make, pictures, form):
    rows = [{"file_name": "a_cat.jpg", "text": "a cat"}, {"file_name": "./sub/c.webp", "text": "a C"}]
    rows.append({"file_name": "gone.jpg", "text": "nothing"})
    if form == "csv":
        content = "".join(
            f"{row['file_name']},{row['text']}\n" for row in [{"file_name": "file_name", "text": "text"}, *rows]
        ).encode()
    else:
        content = make.jsonl(rows) if form == "jsonl" else make.parquet(rows)
    (pictures / f"metadata.{form}").write_bytes(content)
    found = make.read_all(kind="folder", path=str(pictures))
    assert [row.text for row in found[:2]] == ["a cat", "a C"]
    assert found[1].image.content == make.picture(3, "WEBP")
    assert reasons(found) == ["ok", "ok", "missing_picture", "no_metadata"]
    assert found[3].row == "sub/ö b.PNG"
    assert len(make.read_all(kind="folder", path=str(pictures), caption="filename")) == 3


def test_metadata_in_each_folder_and_edits(make, pictures):
    (pictures / "metadata.jsonl").write_bytes(make.jsonl([{"file_name": "a_cat.jpg", "caption": "a cat"}]))
    row = {"file_name": "c.webp", "source_file_name": "ö b.PNG", "instruction": "blur it", "edit_type": "blur"}
    (pictures / "sub" / "metadata.jsonl").write_bytes(make.jsonl([row]))
    picture, edit = make.read_all(kind="folder", path=str(pictures))
    assert (picture.kind, picture.text, picture.row) == ("t2i", "a cat", "metadata.jsonl#0")
    assert (edit.kind, edit.text, edit.label, edit.row) == ("edit", "blur it", "blur", "sub/metadata.jsonl#0")
    assert edit.source.content == make.picture(2, "PNG")


def test_wrong_folders_are_clear_errors(make, pictures, tmp_path):
    (pictures / "metadata.csv").write_text("file_name,words\na_cat.jpg,x\n")
    with pytest.raises(
        ConfigError, match=r"metadata\.csv .*no column .*'text'.*there are: file_name, words.*columns\.text"
    ):
        open_source(make.config(kind="folder", path=str(pictures))).spans()
    (found, *_) = make.read_all(kind="folder", path=str(pictures), columns={"text": "words"})
    assert found.text == "x"
    (pictures / "metadata.csv").unlink()
    with pytest.raises(ConfigError, match="caption: metadata, but there is no metadata"):
        open_source(make.config(kind="folder", path=str(pictures), caption="metadata")).spans()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: no pictures there \(there are: no files at all\)"):
        open_source(make.config(kind="folder", path=str(tmp_path / "empty"))).spans()


def test_names_that_are_not_utf8_and_files_that_go_are_problems(make, pictures):
    with open(os.fsencode(pictures) + b"/\xff.jpg", "wb") as file:
        file.write(make.picture(1))
    reader = open_source(make.config(kind="folder", path=str(pictures)))
    (span,) = reader.spans()
    (pictures / "a_cat.jpg").unlink()
    found = list(reader.read(span))
    assert reasons(found) == ["missing_picture", "ok", "ok", "not_utf8"]
    assert found[3].row == "\\udcff.jpg"


def test_spans_follow_the_number_of_pictures_and_change_with_them(make, pictures, monkeypatch):
    monkeypatch.setattr(folder, "SPAN_ROWS", 2)
    reader = open_source(make.config(kind="folder", path=str(pictures), caption="filename"))
    before = reader.spans()
    assert [span.num_rows for span in before] == [2, 1]
    assert len(make.read(reader)) == 3
    (pictures / "sub" / "ö b.PNG").write_bytes(make.picture(7, "PNG"))
    after = reader.spans()
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_links_to_folders_are_followed_once(make, pictures, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "d.jpg").write_bytes(make.picture(4))
    (pictures / "link").symlink_to(other)
    (other / "loop").symlink_to(pictures)
    assert len(make.read_all(kind="folder", path=str(pictures))) == 4


def test_the_scene_world(make):
    found = make.read_all(kind="scenes", scenes={"num_t2i": 1010, "num_edit": 20, "side": 48, "seed": 3}, name="drawn")
    assert len(found) == 1030
    kept = [row for row in found if not isinstance(row, Problem)]
    assert {row.kind for row in kept} == {"t2i", "edit"}
    assert all((row.source is not None) == (row.kind == "edit") for row in kept)
    assert kept[0].row.startswith("drawn-t2i-0")
    assert '"scene"' in kept[0].extra["facts"]
    assert reasons(found).count("ok") > 900
