"""What `dreamline data inspect` shows of scene data sets, indexed tars and encoded sets."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from data_prep.config import DataJob, DataStage
from data_prep.index.run import index_folder
from data_prep.inspect import samples as inspect_samples
from data_prep.inspect.numbers import LISTED, count_values, histogram
from data_prep.inspect.run import inspect, inspect_sample
from data_prep.inspect.samples import THREADS, draw
from data_prep.inspect.terminal import named_bins, render
from data_prep.run import run
from dreamline.config import ConfigError, Runtime
from dreamline.data.index import open_index
from dreamline.data.manifest import read_table
from flows.data import app


def invoke(*words, code=0):
    done = CliRunner().invoke(app, ["inspect", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


class Page(HTMLParser):
    """Tags and texts of a page, and that every tag is closed."""

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.texts, self.images = [], [], [], []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        elif tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    stage = DataStage(num_t2i=40, num_edit=30, shard_size=16, seed=3)
    run(DataJob(preset="test", run_dir=str(folder), runtime=Runtime(workers=1), stage=stage))
    return folder


@pytest.mark.parametrize(("kind", "count", "pictures"), [("t2i", 40, 1), ("edit", 30, 2)])
def test_a_scene_data_set(scenes, tmp_path, kind, count, pictures):
    html = tmp_path / "page.html"
    found, text = inspect(str(scenes / kind), html, num=8, seed=1)
    rows = read_table(scenes / kind / "manifest.parquet")
    assert (found["type"], found["num_samples"], found["num_shards"]) == ("scenes", count, -(-count // 16))
    size = sum(member["size"] for row in rows for member in row["members"])
    assert found["counts"]["kind"] == {kind: {"samples": count, "bytes": size}}
    labels = [row["label"] for row in rows]
    assert {name: entry["samples"] for name, entry in found["counts"]["label"].items()} == {
        label: labels.count(label) for label in labels
    }
    lengths = found["histograms"]["text length"]
    assert sum(lengths["counts"]) == count
    assert lengths["max"] == max(len(row["text"]) for row in rows)
    assert found["histograms"]["width"]["mean"] == rows[0]["width"]
    assert f"{count} samples in" in text
    assert labels[0] in text
    page = Page(html.read_text())
    assert len(page.images) == 8 * pictures
    shown = [sample.columns["text"] for sample in draw(open_index(scenes / kind), 8, 1)]
    assert len(set(shown) & set(page.texts)) == len(set(shown))
    assert json.loads(json.dumps(found)) == found


def test_the_choice_of_samples_is_seeded(scenes):
    index = open_index(scenes / "t2i")
    keys = [[sample.key for sample in draw(index, 10, seed)] for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert len(set(keys[0])) == 10
    assert [sample.key for sample in draw(index, 1000, 5)] == index.column("key").to_pylist()


def test_one_sample(scenes, tmp_path):
    row = read_table(scenes / "edit" / "manifest.parquet")[20]
    found = json.loads(invoke(scenes / "edit", "--key", row["key"], "--out", tmp_path / "out", "--json"))
    assert (found["key"], found["row"], found["kind"]) == (row["key"], 20, "edit")
    assert found["shard"] == str(scenes / "edit" / row["shard"])
    assert found["columns"]["text"] == row["text"]
    assert found["columns"]["facts"] == json.loads(row["facts"])
    assert list(found["pictures"]) == ["source.png", "target.png"]
    assert [(member["name"], member["offset"]) for member in found["members"]] == [
        (member["name"], member["offset"]) for member in row["members"]
    ]
    with (scenes / "edit" / row["shard"]).open("rb") as shard:
        shard.seek(row["members"][2]["offset"])
        content = shard.read(row["members"][2]["size"])
    assert found["written"][0] == str(tmp_path / "out" / f"{row['key']}.source.png")
    assert (tmp_path / "out" / f"{row['key']}.source.png").read_bytes() == content
    text = invoke(scenes / "edit", "--key", row["key"])
    assert row["text"] in text
    assert "PNG 32 x 32" in text
    with pytest.raises(ConfigError, match=r"no sample has the key 'edit'; keys with it are scenes-edit-"):
        inspect_sample(str(scenes / "edit"), "edit")


@pytest.fixture
def hostile(tars, tmp_path):
    """Indexed tars whose texts, keys and pictures mean no good."""
    broken = tars.picture(3, "PNG")[:60] + bytes(300)
    members = [
        ("a.jpg", tars.picture(1)),
        ("a.txt", b"<script>alert(1)</script> & </style>\x1b[31m"),
        ("a.json", b'{"license": "<img src=x>", "aesthetic": 5}'),
        ("..b/../c.png", broken),
        ("..b/../c.txt", b"broken"),
        ("d.jpg", tars.picture(2, size=(300, 200))),
        ("d.txt", b"x"),
        ("e.txt", b"no picture"),
    ]
    folder = tmp_path / "</title>in"
    tars.write(folder / "0.tar", members)
    index_folder(str(folder))
    return folder


def test_nothing_in_a_data_set_gets_into_the_page(hostile, tmp_path):
    html = tmp_path / "page.html"
    found, text = inspect(str(hostile), html)
    content = html.read_text()
    page = Page(content)
    assert page.tags.count("script") == 1  # the numbers
    assert page.tags.count("title") == 1
    assert len(page.images) == 2
    assert "<script>alert(1)</script> & </style>\x1b[31m" in page.texts
    assert any(part.startswith("broken: ") for part in page.texts)
    numbers = content.split('id="numbers">')[1].split("</script>")[0]
    assert json.loads(numbers)["counts"]["licence"]["<img src=x>"]["samples"] == 1
    assert "\x1b" not in text
    assert found["rejected"] == {"no_picture": 1}
    assert "no_picture" in text
    assert found["histograms"]["scores.aesthetic"]["missing"] == 2


def test_a_broken_sample_is_shown_as_broken(hostile, tmp_path):
    found, text = inspect_sample(str(hostile), "..b/../c", tmp_path / "out")
    assert "broken" in found["pictures"]["png"]
    assert "broken: " in text
    (path,) = (tmp_path / "out").iterdir()  # nowhere else
    assert found["written"] == [str(path)]
    with (hostile / "0.tar").open("r+b") as file:
        file.truncate(3000)
    found, _ = inspect_sample(str(hostile), "d")
    assert set(found["unreadable"]) == {"jpg", "txt"}
    (hostile / "0.tar").unlink()
    inspect(str(hostile), tmp_path / "page.html")
    assert Page((tmp_path / "page.html").read_text()).images == []


def test_pages_go_where_they_are_wanted(scenes, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    found = json.loads(invoke(scenes / "t2i", "--json"))
    assert (found["page"], found["schema_version"], list(here.iterdir())) == (None, 1, [])
    assert "page with samples: inspect-scenes.html" in invoke(scenes / "t2i", "--num", 3)
    picture = Page((here / "inspect-scenes.html").read_text()).images[0]
    assert picture.startswith("data:image/jpeg;base64,")
    done = CliRunner().invoke(app, ["inspect", str(scenes / "t2i"), "--out", "x"])
    assert isinstance(done.exception, ConfigError)
    with pytest.raises(ConfigError, match=r"no dataset\.json and no index\.json.*dreamline data index"):
        inspect(str(here))


@pytest.mark.parametrize("version", [1, 2])
def test_an_encoded_set_has_numbers_and_no_pictures(tmp_path, version):
    of_all = {"kind": "edit", "width": 32, "height": 48, "latent_shape": [4, 4, 6]}
    shards = [{"name": f"{i}.safetensors", "sha256": "0", "samples": 5, "size": 100, "records": None} for i in range(2)]
    values = {"schema_version": version, "name": "x", "plan": "p", "fingerprint": "f" * 64, "num_samples": 10}
    values |= {"text_dim": 8, "parents": {}, "shards": shards}
    if version == 1:
        values |= of_all
    else:
        values["shards"] = [{**shard, **of_all} for shard in shards]
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    found, text = inspect(str(tmp_path), default_page=True)
    assert (found["type"], found["num_bytes"], found["page"]) == ("encoded", 200, None)
    assert found["counts"] == {"kind and size": {"edit 32x48": {"samples": 10}}}
    assert "edit 32x48" in text
    with pytest.raises(ConfigError, match="hold no pictures; inspect the data set that they were made from"):
        inspect(str(tmp_path), tmp_path / "page.html")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e12, 1e12), st.integers(-(10**6), 10**6), st.just(float("nan"))), min_size=1))
def test_every_value_is_in_one_bin(values):
    numbers = np.array(values, np.float64)
    found = histogram(numbers)
    assert sum(found["counts"]) + found["missing"] == len(values)
    assert len(found["edges"]) == len(found["counts"]) + 1
    assert len(found["counts"]) <= 40
    assert found["edges"] == sorted(found["edges"])
    if sum(found["counts"]):
        assert found["edges"][0] <= found["min"]
        assert found["max"] < found["edges"][-1]


def test_counts_of_many_values():
    values = [f"v{number:03d}" for number in range(150) for _ in range(150 - number)] + ["", None]
    found = count_values(pa.chunked_array([values]), np.full(len(values), 2, np.int64))
    assert list(found)[:2] == ["v000", "v001"]
    assert found["v000"] == {"samples": 150, "bytes": 300}
    assert sum(entry["samples"] for entry in found.values()) == len(values)
    assert len(found) == LISTED + 1
    assert found["(not stated)"] == {"samples": 2, "bytes": 4} if "(not stated)" in found else "(other)" in found


def test_empty_bins_are_drawn_together():
    values = np.array([32.0, 64, 64, 70, 78])
    assert list(named_bins(histogram(values))) == [
        ("30 - 35", 1),
        ("35 - 60", 0),
        ("60 - 65", 2),
        ("65 - 70", 0),
        ("70 - 75", 1),
        ("75 - 80", 1),
    ]
    assert list(named_bins(histogram(np.array([5.0, 5])))) == [("5", 2)]


def test_lines_fit_a_terminal(hostile):
    found, _ = inspect(str(hostile))
    assert max(len(line) for line in render({**found, "target": "x", "name": "x"}).splitlines()) <= 90


def test_pictures_on_the_page_are_small_copies(hostile, tmp_path):
    import base64

    inspect(str(hostile), tmp_path / "page.html")
    sizes = []
    for source in Page((tmp_path / "page.html").read_text()).images:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
            sizes.append(image.size)
    assert sizes == [(48, 32), (192, 128)]


def test_pictures_are_written_under_names_of_their_own(tars, tmp_path):
    key = "\u56fe" * 120
    png = tars.picture(1, "PNG")
    other = tars.picture(2, "PNG")
    members = [(f"{key}.a b.png", png), (f"{key}.a:b.png", other), (f"{key}.txt", b"x")]
    members += [("2.\u539f\u56fe.png", png), ("2.\u7ed3\u679c.png", other), ("2.txt", b"x")]
    members += [(f"3.{'s' * 300}.png", png), ("3.a:b.png", other), ("3.txt", b"x")]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(tars.pack(members))
    roles = {"source": ("a b", "\u539f\u56fe", "s" * 300), "image": ("a:b", "\u7ed3\u679c")}
    assert index_folder(str(tmp_path / "in"), roles).info.num_samples == 3
    for number, name in enumerate((key, "2", "3")):
        found, _ = inspect_sample(str(tmp_path / "in"), name, tmp_path / f"out-{number}")
        files = list((tmp_path / f"out-{number}").iterdir())
        assert sorted(found["written"]) == sorted(map(str, files))
        assert {file.read_bytes() for file in files} == {png, other}


def test_samples_of_a_page_are_read_a_few_at_a_time(scenes, monkeypatch):
    counted = []
    read = inspect_samples.read_range
    monkeypatch.setattr(inspect_samples, "read_range", lambda *where: counted.append(1) or read(*where))
    drawn = draw(open_index(scenes / "t2i"), 40, 0)
    members = len(next(drawn).members)
    del drawn
    assert len(counted) <= (2 * THREADS + 1) * members


def test_a_page_and_pictures_need_places_that_are_free(scenes, tmp_path):
    with pytest.raises(ConfigError, match="is a folder; name the file"):
        inspect(str(scenes / "t2i"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no folder; name the one"):
        inspect_sample(str(scenes / "t2i"), "x", tmp_path / "file")
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"dataset\.json: not a JSON object"):
        inspect(str(tmp_path))


def test_keys_are_told_without_what_a_terminal_obeys(tars, tmp_path):
    tars.write(tmp_path / "a.tar", [("\x1b[31m.jpg", tars.picture()), ("\x1b[31m.txt", b"x")])
    index_folder(str(tmp_path))
    with pytest.raises(ConfigError, match=r"a key is, for one, [^\x1b]*$"):
        inspect_sample(str(tmp_path), "y")


def test_numbers_of_any_size_have_bins():
    for values in ([0.0, 5e-324], [1e-310, 3e-310], [-1e300, 1e300], [1e300, 1e300]):
        assert sum(histogram(np.array(values))["counts"]) == 2


def test_a_text_of_several_lines_has_several_lines(tars, tmp_path):
    tars.write(tmp_path / "a.tar", [("1.jpg", tars.picture()), ("1.txt", b"one\ntwo\x1b")])
    index_folder(str(tmp_path))
    assert "  txt: one\ntwo\N{REPLACEMENT CHARACTER}\n" in inspect_sample(str(tmp_path), "1")[1]
