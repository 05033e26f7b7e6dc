"""What the members of a foreign sample mean."""

from __future__ import annotations

import pytest

from data_prep.sources.scenes import SceneSource
from dreamline.config import ConfigError
from dreamline.data.foreign import ForeignError, Roles, parse_names, read_text, split_path, text_places, to_sample
from dreamline.scenes.world import World


def test_names_of_members_and_paths_into_them():
    assert parse_names("text", " .txt, json.caption ,") == ("txt", "json.caption")
    assert split_path("json.tags.0") == ("json", ("tags", "0"))
    assert split_path("meta.json.edit.text") == ("meta.json", ("edit", "text"))
    assert split_path("source.png") == ("source.png", ())
    with pytest.raises(ConfigError, match="text: names no member"):
        parse_names("text", ",")


def text_of(members, *names):
    return read_text(members, text_places(members, names))


def test_texts_of_many_shapes():
    members = {
        "txt": b"",
        "json": '{"a": {"b": ["", "ü"]}, "number": 7, "none": null, "deep": {"x": 1}}'.encode(),
        "meta.json": b'"alone"',
        "note.txt": b" a note ",
        "bad": b"\xff",
        "bad.json": b"{",
    }
    assert text_of(members, "txt", "json.none", "json.a.b") == ("ü", "json")
    assert text_of(members, "json.a.b.1", "txt") == ("ü", "json")
    assert text_of(members, "json.a.b.9", "json.number") == ("7", "json")
    assert text_of(members, "meta") == ("alone", "meta.json")
    assert text_of(members, "note") == ("a note", "note.txt")
    assert text_of(members, "nothing", "json.deep.x.y") == (None, None)
    for name, reason in (
        ("bad", "bad_text"),
        ("bad.json.x", "bad_json"),
        ("json.deep", "bad_text"),
        ("json", "bad_text"),
    ):
        with pytest.raises(ForeignError) as error:
            text_of(members, name)
        assert error.value.reason == reason
    with pytest.raises(ForeignError, match=r"json\.x is not valid Unicode"):
        text_of({"json": b'{"x": "\\ud800"}'}, "json.x")


def test_samples(tars):
    jpeg, png = tars.picture(1, size=(40, 30)), tars.picture(2, "PNG", size=(40, 30))
    sample = to_sample("a/1", {"jpg": jpeg, "json": b'{"caption": "c", "x": 1}', "cls": b"3"}, Roles())
    assert (sample.kind, sample.text, sample.label, sample.image) == ("t2i", "c", "3", jpeg)
    assert (sample.width, sample.height, sample.facts) == (40, 30, {"caption": "c", "x": 1})
    edit = {"source.png": png, "target.jpg": jpeg, "instruction.txt": b"redder", "mask.png": png}
    sample = to_sample("e", edit, Roles())
    assert (sample.kind, sample.text, sample.image, sample.source, sample.mask) == ("edit", "redder", jpeg, png, png)
    roles = Roles(image=("1",), source=("0",), text=("none",), label=("none",))
    sample = to_sample("n", {"0.png": png, "1.jpg": jpeg}, roles)
    assert (sample.kind, sample.text, sample.label, sample.facts) == ("edit", "", "", {})
    with pytest.raises(ValueError, match=r"sample x: cannot be read: no_picture: has the members \['txt'\]"):
        to_sample("x", {"txt": b"a"}, Roles())
    with pytest.raises(ValueError, match="sample x: cannot be read: bad_picture: jpg: format"):
        to_sample("x", {"jpg": b"<html>"}, Roles())


def test_records_of_ours_are_themselves():
    source = SceneSource("edit", World(), "scenes", 2, 0, 32)
    for sample in (source.sample(0), SceneSource("t2i", World(), "scenes", 2, 0, 32).sample(1)):
        assert to_sample(sample.key, sample.members(), Roles()) == sample
