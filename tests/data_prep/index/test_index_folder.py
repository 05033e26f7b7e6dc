"""Tars of others become a data set where they lie: what webdataset reads, we read; what nobody can use is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset
from typer.testing import CliRunner

from data_prep.index import samples as index_samples
from data_prep.index.run import index_folder
from data_prep.index.scan import STAGING, IndexConfig, Scanning
from dreamline.config import ConfigError
from dreamline.data.index import open_index
from dreamline.data.shards import ShardReader
from dreamline.storage import list_files, open_read, put
from flows.data import app


def read_all(folder):
    """Every sample, by key."""
    reader = ShardReader(open_index(folder))
    samples = reader.read(range(len(reader)))
    assert len({sample.key for sample in samples}) == len(samples)
    return {sample.key: sample for sample in samples}


def rejects(outcome):
    if outcome.info.rejects is None:
        return []
    with open_read(f"{outcome.folder}/{outcome.info.rejects.name}") as file:
        rows = pq.read_table(file).to_pylist()
    return [(row["shard"], row["key"], row["reason"]) for row in rows]


def test_what_the_webdataset_package_writes_and_reads(tars, tmp_path):
    (tmp_path / "in").mkdir()
    with webdataset.ShardWriter(f"{tmp_path}/in/%04d.tar", maxcount=7, verbose=0) as writer:
        for number in range(17):
            facts = {"caption": f"c {number}", "aesthetic": number / 2, "ok": True}
            words = {"jpg": tars.picture(number), "json": facts, "txt": f"text {number}", "npy": b"x" * 600}
            writer.write({"__key__": f"sub/{number:03d}", **words})
    outcome = index_folder(str(tmp_path / "in"))
    assert (outcome.info.num_samples, outcome.info.rejected, outcome.num_read) == (17, {}, 3)
    ours = read_all(tmp_path / "in")
    theirs = list(webdataset.WebDataset(sorted(map(str, tmp_path.glob("in/*.tar"))), shardshuffle=False))
    assert [*ours] == [sample["__key__"] for sample in theirs]
    for sample in theirs:
        own = ours[sample["__key__"]]
        assert (own.image, own.text.encode()) == (sample["jpg"], sample["txt"])
        assert own.facts == json.loads(sample["json"])
        assert (own.width, own.height) == (48, 32)
    index = open_index(tmp_path / "in")
    assert index.column("scores.aesthetic").to_pylist() == [number / 2 for number in range(17)]
    assert index.column("width").to_pylist() == [48] * 17
    assert [other["name"] for other in index.column("others")[3].as_py()] == ["npy"]
    assert [member.name for member in index.locate([3])[0].members] == ["jpg", "json", "txt"]


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
def test_what_gnu_tar_packs(tars, tmp_path, form):
    folder = tmp_path / "files"
    deep = folder / ("d" * 80) / ("long" * 20) if form in ("gnu", "posix") else folder / "deep"
    for place, key in (
        (folder, "a.b"),
        (folder, "c"),
        (deep, "ü"),
        (deep, "k" * 99 if form in ("gnu", "posix") else "k" * 80),
    ):
        tars.write(place / "x.tar", [])
        (place / "x.tar").unlink()
        (place / f"{key}.JPG").write_bytes(tars.picture(len(key)))
        (place / f"{key}.txt").write_text(f"about {key[:1]}")
    (folder / "README").write_text("no sample")
    (folder / ".hidden.jpg").write_text("no sample")
    (tmp_path / "in").mkdir()
    tar = tmp_path / "in" / "a.tar"
    subprocess.run(["tar", f"--format={form}", "--sort=name", "-cf", tar, "-C", folder, "."], check=True)
    outcome = index_folder(str(tmp_path / "in"))
    found = read_all(tmp_path / "in")
    assert {key.rpartition("/")[2][:1]: sample.text for key, sample in found.items()} == {
        "c": "about c",
        "ü": "about ü",
        "k": "about k",
    }
    # "a.b.JPG" and "a.b.txt" are the members "b.jpg" and "b.txt" of "a", as they are for the webdataset package
    assert outcome.info.rejected == {"hidden": 1, "no_extension": 1, "no_picture": 1}
    assert sorted(key for _, key, reason in rejects(outcome) if reason == "no_picture") == ["a"]


def test_what_cannot_be_used_is_counted_and_named(tars, tmp_path, monkeypatch):
    monkeypatch.setattr(index_samples, "MAX_TEXT", 3000)
    good = tars.captioned([1, 2])
    members = [
        *good[:3],
        ("b.jpg", tars.picture()),
        ("c.txt", b"only a text"),
        ("d.jpg", b"<html>"),
        ("d.txt", b"x"),
        ("e.jpg", tars.picture()),
        ("e.txt", b"\xff"),
        ("f.jpg", tars.picture()),
        ("f.JPG", tars.picture()),
        ("f.txt", b"x"),
        ("g.jpg", tars.picture()),
        ("g.json", b"{"),
        ("h.jpg", tars.picture()),
        ("h.txt", b"x" * 4000),
        ("i.source.jpg", tars.picture(size=(10, 20))),
        ("i.target.jpg", tars.picture(size=(20, 10))),
        ("i.instruction.txt", b"turn it"),
        ("LICENSE", b"no extension"),
        ("._j.jpg", b"of macOS"),
        *good[3:],
        ("0001.png", tars.picture(1, "PNG")),
        ("k.jpg", b""),
        ("k.txt", b"x"),
    ]
    tars.write(tmp_path / "in" / "x" / "a.tar", members)
    outcome = index_folder(str(tmp_path / "in"))
    shard = "x/a.tar"
    assert rejects(outcome) == [
        (shard, "b", "no_text"),
        (shard, "c", "no_picture"),
        (shard, "d", "bad_picture"),
        (shard, "e", "bad_text"),
        (shard, "f", "several_members"),
        (shard, "g", "bad_json"),
        (shard, "h", "too_large"),
        (shard, None, "no_extension"),
        (shard, None, "hidden"),
        (shard, "i", "geometry_differs"),
        (shard, "0001", "duplicate_key"),
        (shard, "k", "bad_picture"),
    ]
    assert [*read_all(tmp_path / "in")] == ["0001", "0002"]
    told = outcome.summary()
    assert sum(told["rejected"].values()) == 12
    assert (
        told["examples"]["duplicate_key"]
        == f"{shard}: 0001: comes a second time; all members of a sample must stand together"
    )
    assert told["examples"]["no_extension"].startswith(f"{shard}: LICENSE: ")
    assert "target.jpg 20x10, source.jpg 10x20" in told["examples"]["geometry_differs"]


def test_damage_costs_no_more_than_what_is_damaged(tars, tmp_path):
    content = tars.pack(tars.captioned(range(5)))
    folder = tmp_path / "in"
    for name, damaged in {
        "cut.tar": content[: content.index(b"0003.json") + 700],
        "zipped.tar": b"\x1f\x8b\x08" + bytes(600),
        "broken.tar": content.replace(b"0002.txt\0", b"XXXX.txt\0"),
        "empty.tar": b"",
        "page.tar": b"<html>" * 100,
        "whole.tar": content,
    }.items():
        put(folder / name, damaged)
    outcome = index_folder(str(folder))
    counts = {shard.name: shard.samples for shard in outcome.info.shards}
    assert counts == {"broken.tar": 2, "cut.tar": 3, "empty.tar": 0, "page.tar": 0, "whole.tar": 5, "zipped.tar": 0}
    damage = outcome.summary()["damaged"]
    assert set(damage) == {"broken.tar", "cut.tar", "empty.tar", "page.tar", "zipped.tar"}
    assert "cut off" in damage["cut.tar"]
    assert "0003.json" in damage["cut.tar"]
    assert "unpack it" in damage["zipped.tar"]
    assert "wrong checksum" in damage["broken.tar"]
    found = read_all(folder)
    assert len(found) == outcome.info.num_samples == 10
    # keys that several tars have get the name of the tar in front
    assert "whole.tar/0000" in found
    assert "0004" in found
    assert outcome.info.num_renamed == 8  # 0000 and 0001 three times, 0002 twice


def test_names_that_are_no_text_harm_nobody(tars, tmp_path):
    members = [*tars.captioned([1]), ("\x1b[31m.txt", b"x"), ("\udcff.jpg", b"x"), ("\udcfe/2.jpg", tars.picture())]
    content = tars.pack(members)
    (tmp_path / "a.tar").write_bytes(content[: content.index(b"\xfe/2.jpg") + 600])
    outcome = index_folder(str(tmp_path))
    assert outcome.info.rejected == {"bad_name": 2, "damaged_file": 1}
    assert "'\\udcfe/2.jpg'" in outcome.summary()["damaged"]["a.tar"]
    told = json.dumps(outcome.summary(), ensure_ascii=False)
    assert "\x1b" not in told
    assert told.encode()
    assert [*read_all(tmp_path)] == ["0001"]


def test_only_what_is_new_is_read(tars, tmp_path):
    folder = tmp_path / "in"
    for number in range(3):
        tars.write(folder / f"{number}.tar", tars.captioned(range(10 * number, 10 * number + 4)))
    first = index_folder(str(folder))
    assert first.num_read == 3
    again = index_folder(str(folder))
    assert (again.num_read, again.info) == (0, first.info)
    tars.write(folder / "0b.tar", [*tars.captioned([90, 0]), ("alone.txt", b"x")])
    more = index_folder(str(folder))
    assert (more.num_read, more.info.num_samples, more.info.num_renamed) == (1, 14, 2)
    assert {"0000", "0b.tar/0000", "0.tar/0000"} & set(read_all(folder)) == {"0b.tar/0000", "0.tar/0000"}
    assert rejects(more) == [("0b.tar", "alone", "no_picture")]
    (folder / "0b.tar").unlink()
    tars.write(folder / "1.tar", tars.captioned([7]))
    less = index_folder(str(folder))
    assert (less.num_read, less.num_gone, less.info.num_samples) == (1, 1, 9)
    assert (less.info.rejected, less.info.num_renamed) == ({}, 0)
    assert "0000" in read_all(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "0.tar",
        "1.tar",
        "2.tar",
        less.info.table.name,
        "index.json",
    ]
    fresh = tmp_path / "fresh"
    shutil.copytree(folder, fresh, ignore=shutil.ignore_patterns("index*"))
    assert index_folder(str(fresh)).info.fingerprint == less.info.fingerprint


def test_an_index_that_was_cut_off_goes_on(tars, tmp_path):
    folder = tmp_path / "in"
    for number in range(3):
        tars.write(folder / f"{number}.tar", tars.captioned(range(10 * number, 10 * number + 4)))
    files = [file for file in list_files(folder) if file.name != "2.tar"]
    for file in files:
        Scanning(str(folder), IndexConfig())(file)
    assert len(list((folder / STAGING).iterdir())) == 4
    os.utime(folder / "1.tar", ns=(1, 1))  # another version of it
    outcome = index_folder(str(folder))
    assert (outcome.num_read, outcome.info.num_samples) == (2, 12)
    assert not (folder / STAGING).exists()


def test_the_layout_of_tars_does_not_change_the_fingerprint(tars, tmp_path):
    tars.write(tmp_path / "a" / "0.tar", tars.captioned(range(6)))
    tars.write(tmp_path / "b" / "x.tar", tars.captioned(range(3, 6)))
    tars.write(tmp_path / "b" / "y.tar", tars.captioned(range(3)))
    tars.write(tmp_path / "c" / "0.tar", [*tars.captioned(range(5)), ("0005.jpg", tars.picture(6)), ("0005.txt", b"x")])
    prints = [index_folder(str(tmp_path / name)).info.fingerprint for name in "abc"]
    assert prints[0] == prints[1] != prints[2]


def test_roles_of_ones_own_are_kept(tars, tmp_path):
    members = []
    for number in range(4):
        png = tars.picture(number, "PNG")
        members += [
            (f"{number}.0.png", png),
            (f"{number}.1.png", png),
            (f"{number}.meta.json", b'{"edit": ["", "red"]}'),
        ]
    folder = tmp_path / "in"
    tars.write(folder / "a.tar", members)
    with pytest.raises(
        ConfigError, match=r"no sample that can be used\n  no_picture: a\.tar: 0: .* 0\.png, 1\.png, meta\.json"
    ):
        index_folder(str(folder))
    assert [path.name for path in folder.iterdir()] == ["a.tar"]
    arguments = ["index", str(folder), "--source", "0", "--image", "1", "--text", "meta.json.edit", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    tars.write(folder / "b.tar", [(f"1{name}", content) for name, content in members])
    outcome = index_folder(str(folder))
    assert (outcome.num_read, outcome.info.num_samples) == (1, 8)
    samples = read_all(folder).values()
    assert {(sample.kind, sample.text) for sample in samples} == {("edit", "red")}
    assert index_folder(str(folder), {"text": ("none",)}).num_read == 2
    assert {sample.text for sample in read_all(folder).values()} == {""}


def test_sizes_and_hashes_are_a_matter_of_choice(tars, tmp_path):
    tars.write(tmp_path / "a.tar", tars.captioned(range(3)))
    bare = index_folder(str(tmp_path), headers=False)
    assert open_index(tmp_path).column("width").null_count == 3
    assert read_all(tmp_path)["0002"].width == 50
    assert not open_index(tmp_path).shards[0].hashed
    full = index_folder(str(tmp_path), headers=True, hashed=True)
    assert full.info.num_samples == bare.info.num_samples
    shard = open_index(tmp_path).shards[0]
    assert shard.hashed
    read_all(tmp_path)
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[600] ^= 1
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.tar: is damaged .* run `dreamline data index .*` again"):
        read_all(tmp_path)


def test_on_s3_as_on_disk(tars, tmp_path, bucket):
    for number in range(2):
        content = tars.pack([*tars.captioned(range(10 * number, 10 * number + 4)), ("x.txt", b"alone")])
        for place in (f"{bucket}/data/in", str(tmp_path / "in")):
            put(f"{place}/{number}.tar", content)
    local, remote = index_folder(str(tmp_path / "in")), index_folder(f"{bucket}/data/in/")
    assert remote.info.fingerprint == local.info.fingerprint
    assert rejects(remote) == rejects(local) != []
    assert read_all(f"{bucket}/data/in") == read_all(tmp_path / "in")
    put(f"{bucket}/data/in/1b.tar", tars.pack(tars.captioned([77])))
    more = index_folder(f"{bucket}/data/in")
    assert (more.num_read, more.info.num_samples) == (1, 9)
    names = {file.name for file in list_files(f"{bucket}/data/in")}
    assert names == {"0.tar", "1.tar", "1b.tar", "index.json", more.info.table.name, more.info.rejects.name}
    assert list_files(f"{bucket}/data/in/{STAGING}") == []
    hashed = index_folder(f"{bucket}/data/in", hashed=True)
    assert all(shard.sha256 for shard in hashed.info.shards)


def test_many_workers_give_the_same(tars, tmp_path):
    for number in range(4):
        tars.write(tmp_path / "a" / f"{number}.tar", tars.captioned(range(10 * number, 10 * number + 3)))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    one, two = index_folder(str(tmp_path / "a")), index_folder(str(tmp_path / "b"), workers=2)
    assert two.info.table == one.info.table


def test_pictures_of_any_size_and_place_of_their_header(tars, tmp_path):
    late = tars.picture(1, icc_profile=os.urandom(200_000))
    members = [("a.jpg", late), ("a.txt", b"x"), ("b.tiff", tars.picture(2, "TIFF")), ("b.txt", b"x")]
    (tmp_path / "a.tar").write_bytes(tars.pack(members, tarfile.PAX_FORMAT))
    index_folder(str(tmp_path), hashed=True)
    assert {(sample.width, sample.height) for sample in read_all(Path(tmp_path)).values()} == {(48, 32)}
