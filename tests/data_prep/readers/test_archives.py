"""WebDataset archives: samples, spans, damage."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest

from data_prep.record import Problem
from data_prep.sources import tar_file, webdataset
from data_prep.sources.reader import open_source
from dreamline.config import ConfigError


def t2i(make, num, start=0):
    return [
        member
        for i in range(start, start + num)
        for member in ((f"{i:05d}.jpg", make.picture(i)), (f"{i:05d}.txt", f"caption {i}".encode()))
    ]


def reasons(found):
    return [row.reason if isinstance(row, Problem) else "ok" for row in found]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("zipped", [False, True])
def test_samples_of_pictures_and_of_edits(make, tmp_path, form, zipped):
    long = "deep/" + "k" * 120
    members = [
        *t2i(make, 3),
        ("e.1.source.png", make.picture(1, "PNG")),
        ("e.1.target.png", make.picture(2, "PNG")),
        ("edit.source.PNG", make.picture(1, "PNG")),
        ("edit.target.webp", make.picture(2, "WEBP")),
        ("edit.instruction.txt", "mach es röter".encode()),
        ("edit.mask.png", make.picture(3, "PNG")),
        ("edit.json", b'{"label": "recolour", "url": "https://example.org/x", "licence": "CC0"}'),
        ("edit.latent.npy", b"not read"),
        ("._hidden.jpg", b"from macOS"),
        (f"{long}.jpeg" if form != tarfile.USTAR_FORMAT else "deep/k.jpeg", make.picture(9)),
        ("deep/ünï.jpg" if form != tarfile.USTAR_FORMAT else "deep/u.jpg", make.picture(8)),
    ]
    content = make.tar(members, format=form)
    path = tmp_path / ("a.tar.gz" if zipped else "a.tar")
    path.write_bytes(gzip.compress(content) if zipped else content)
    found = make.read_all(kind="webdataset", path=str(tmp_path))
    assert [row.kind for row in found if not isinstance(row, Problem)] == ["t2i"] * 3 + ["edit"] + ["t2i"] * 2
    assert reasons(found) == ["ok"] * 3 + ["no_picture"] + ["ok"] * 3
    assert [row.text for row in found[:3]] == ["caption 0", "caption 1", "caption 2"]
    edit = found[4]
    assert (edit.text, edit.label, edit.provenance.licence) == ("mach es röter", "recolour", "CC0")
    assert edit.image.content == make.picture(2, "WEBP")
    assert edit.source.content == make.picture(1, "PNG")
    assert edit.mask.content == make.picture(3, "PNG")
    assert found[5].image.content == make.picture(9)


def test_the_shards_that_we_write_are_a_source(make, tmp_path):
    from data_prep.sources.config import Scenes
    from data_prep.sources.scene_records import ScenesReader
    from data_prep.sources.scenes import SceneSource
    from data_prep.writer import write_tar
    from dreamline.scenes.world import World

    samples = [SceneSource(kind, World(), "scenes", 3, 0, 32).sample(i) for kind in ("t2i", "edit") for i in range(3)]
    write_tar(samples, tmp_path, "scenes")
    found = make.read_all(kind="webdataset", path=str(tmp_path))
    drawn = make.read(ScenesReader(Scenes(num_t2i=3, num_edit=3), "scenes"))
    assert [(row.kind, row.text, row.label, row.image, row.source) for row in found] == [
        (row.kind, row.text, row.label, row.image, row.source) for row in drawn
    ]


def test_columns_of_ones_own(make, tmp_path):
    members = [
        ("a.0.jpg", make.picture(0)),
        ("a.1.jpg", make.picture(1)),
        ("a.json", b'{"edit": {"text": "red"}, "score": 4}'),
    ]
    (tmp_path / "a.tar").write_bytes(make.tar(members))
    columns = {"source": "0", "image": "1", "text": "json.edit.text", "scores": {"q": "json.score"}, "extra": ["key"]}
    (found,) = make.read_all(kind="webdataset", path=str(tmp_path), columns=columns)
    assert (found.kind, found.text, found.scores, found.extra) == ("edit", "red", {"q": 4.0}, {"key": "a"})
    with pytest.raises(
        ConfigError, match=r"a\.tar \(first samples\): no column '2'; there are: 0, 1, json\.edit, .*key"
    ):
        open_source(make.config(kind="webdataset", path=str(tmp_path), columns={"image": "2"})).spans()


def test_samples_that_cannot_be(make, tmp_path, monkeypatch):
    monkeypatch.setattr(tar_file, "MAX_MEMBER", 5000)
    members = [
        *t2i(make, 1),
        ("b.txt", b"a caption alone"),
        ("c.jpg", make.picture(1)),
        ("c.png", make.picture(1)),
        ("d.jpg", make.picture(1)),
        ("d.json", b"{"),
        ("e.jpg", b"x" * 6000),
        ("f.jpg", make.picture(1)),
        ("f.txt", b"\xff\xfe"),
        *t2i(make, 1, 7),
    ]
    (tmp_path / "a.tar").write_bytes(make.tar(members))
    found = make.read_all(kind="webdataset", path=str(tmp_path))
    assert reasons(found) == ["ok", "no_picture", "several_members", "bad_row", "too_large", "not_utf8", "ok"]
    assert [row.row for row in found] == [f"a.tar#{i}" for i in range(7)]


def test_a_large_local_archive_is_cut_at_samples(make, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "CUT_ABOVE", 0)
    monkeypatch.setattr(webdataset, "SPAN_ROWS", 4)
    (tmp_path / "a.tar").write_bytes(make.tar(t2i(make, 10), format=tarfile.PAX_FORMAT))
    reader = open_source(make.config(kind="webdataset", path=str(tmp_path)))
    assert [(span.first_row, span.num_rows) for span in reader.spans()] == [(0, 4), (4, 4), (8, 2)]
    assert [row.text for row in make.read(reader)] == [f"caption {i}" for i in range(10)]


def test_damage_is_a_problem_wherever_it_is(make, tmp_path):
    content = make.tar(t2i(make, 5))
    whole = content.rstrip(b"\0")
    path = tmp_path / "a.tar"
    counts = []
    for kept in range(1, len(whole), 311):
        path.write_bytes(content[:kept])
        *sound, problem = make.read_all(kind="webdataset", path=str(path))
        assert problem.reason == "damaged_file"
        assert [row.text for row in sound] == [f"caption {i}" for i in range(len(sound))]
        counts.append(len(sound))
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 4)
    broken = bytearray(content)
    at = content.index(b"00002.jpg")
    broken[at : at + 9] = b"X" * 9  # the checksum of this header is wrong now
    path.write_bytes(broken)
    assert reasons(make.read_all(kind="webdataset", path=str(path))) == ["ok", "damaged_file"]
    path.write_bytes(b"this is no archive" * 100)
    assert reasons(make.read_all(kind="webdataset", path=str(path))) == ["damaged_file"]
    path.write_bytes(b"")
    assert reasons(make.read_all(kind="webdataset", path=str(path))) == ["empty_file"]
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(content)[:-400])
    assert reasons(make.read_all(kind="webdataset", path=str(tmp_path / "b.tar.gz")))[-1] == "damaged_file"


def test_archives_put_behind_each_other_are_read_to_the_end(make, tmp_path):
    (tmp_path / "a.tar").write_bytes(make.tar(t2i(make, 2)) + make.tar(t2i(make, 2, 2)))
    found = make.read_all(kind="webdataset", path=str(tmp_path))
    assert [row.text for row in found] == [f"caption {i}" for i in range(4)]


def test_links_folders_and_devices_hold_nothing(make, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("d", tarfile.DIRTYPE), ("passwd.jpg", tarfile.SYMTYPE), ("n.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            archive.addfile(info)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue()[:1536] + make.tar(t2i(make, 1)))
    found = make.read_all(kind="webdataset", path=str(tmp_path))
    assert [row.text for row in found] == ["caption 0"]
