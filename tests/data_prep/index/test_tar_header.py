"""The parser of tar headers against Python's and GNU's tar, and against damage."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from data_prep.index.samples import split_name
from data_prep.sources.tar_header import BLOCK, Entry, TarDamage, entries, parse_attributes, parse_header

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
letters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
parts = st.text(letters, min_size=1, max_size=70).filter(lambda part: part not in (".", ".."))
names = st.lists(parts, min_size=1, max_size=5).map("/".join)
files = st.lists(st.tuples(names, st.binary(max_size=1500)), min_size=1, max_size=6)


def pack(members: list[tuple[str, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def walk(content: bytes) -> list[tuple[str, int, int]]:
    return [(entry.name, entry.start, entry.size) for entry in entries(io.BytesIO(content))]


def by_tarfile(content: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [(info.name, info.offset_data, info.size) for info in archive if info.isfile()]


@settings(max_examples=150, deadline=None)
@given(files, st.sampled_from(sorted(FORMATS)))
def test_the_same_files_as_the_standard_library(members: list[tuple[str, bytes]], form: str) -> None:
    try:
        content = pack(members, FORMATS[form])
    except ValueError:  # too long a name for ustar
        return
    found = walk(content)
    assert found == by_tarfile(content)
    assert [(name, content[start : start + size]) for name, start, size in found] == members


@settings(max_examples=60, deadline=None)
@given(files, st.sampled_from(["gnu", "pax"]), st.data())
def test_a_cut_archive_is_damaged_and_never_gives_other_files(
    members: list[tuple[str, bytes]], form: str, data: st.DataObject
) -> None:
    content = pack(members, FORMATS[form])
    whole, end = walk(content), len(content.rstrip(b"\0"))
    cut = content[: data.draw(st.integers(0, end - 1))]
    seen: list[Entry] = []
    with pytest.raises(TarDamage):
        seen.extend(entries(io.BytesIO(cut)))
    assert [(entry.name, entry.start, entry.size) for entry in seen] == whole[: len(seen)]


@settings(max_examples=150, deadline=None)
@given(files, st.data())
def test_changed_bytes_give_damage_or_files_but_nothing_else(
    members: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    content = bytearray(pack(members, tarfile.PAX_FORMAT))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        for entry in entries(io.BytesIO(bytes(content))):
            assert entry.size >= 0
            assert entry.start % BLOCK == 0
    except TarDamage:
        pass


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_archives_of_gnu_tar(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "in"
    long = folder / ("d" * 60) / ("e" * 60) if form not in ("v7", "ustar") else folder / "d"
    long.mkdir(parents=True)
    for place, name in ((folder, "0001.jpg"), (folder, "ü 1.txt"), (long, "f" * 90 if form != "v7" else "f")):
        (place / name).write_bytes(os.urandom(700))
    (folder / "link.jpg").symlink_to("0001.jpg")
    os.link(folder / "0001.jpg", folder / "zz-hard.jpg")
    (folder / "empty.txt").touch()
    tar = tmp_path / "a.tar"
    subprocess.run(["tar", f"--format={form}", "--sort=name", "-cf", tar, "-C", folder, "."], check=True)
    content = tar.read_bytes()
    found = walk(content)
    assert found == by_tarfile(content)
    assert len(found) == 4
    for name, start, size in found:
        assert content[start : start + size] == (folder / name).read_bytes()


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_files_are_refused(tmp_path: Path, form: str) -> None:
    with (tmp_path / "holes.bin").open("wb") as file:
        file.truncate(2**20)
        file.seek(2**20)
        file.write(b"x" * 5000)
    tar = tmp_path / "a.tar"
    subprocess.run(["tar", f"--format={form}", "--sparse", "-cf", tar, "-C", tmp_path, "holes.bin"], check=True)
    with pytest.raises(TarDamage, match=r"holes\.bin': sparse files are not read; .* without --sparse"):
        walk(tar.read_bytes())


def test_sizes_beyond_eight_gigabytes() -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("large.bin")
        info.size = 9 * 2**30 + 7
        head = info.tobuf(form)
        seen: list[Entry] = []
        with pytest.raises(TarDamage, match=r"no end mark at byte \d+, in or after 'large\.bin'"):
            seen.extend(entries(io.BytesIO(head)))
        assert [(entry.name, entry.size) for entry in seen] == [("large.bin", info.size)]
        assert len(head) == (BLOCK if form == tarfile.GNU_FORMAT else 3 * BLOCK)


@pytest.mark.parametrize("flag", [b"0", b"1", b"5", b"7", b"L", b"g", b"x", b"S", b"?"])
@pytest.mark.parametrize("size", [2**42, 2**60, 2**80])
def test_sizes_that_no_file_has(tmp_path: Path, flag: bytes, size: int) -> None:
    info = tarfile.TarInfo("a.bin")
    info.type, info.size = flag, size
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with (tmp_path / "a.tar").open("rb") as file, pytest.raises(TarDamage):
        list(entries(file))


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "x", "²"])
def test_sizes_that_are_no_numbers(size: str) -> None:
    info = tarfile.TarInfo("a.bin")
    info.pax_headers = {"size": size}
    with pytest.raises(TarDamage, match="extended attributes with the size"):
        list(entries(io.BytesIO(info.tobuf(tarfile.PAX_FORMAT))))


def test_what_is_no_header() -> None:
    block = tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT)
    assert parse_header(block).name == "a.jpg"
    with pytest.raises(TarDamage, match="no tar header at byte 1024: wrong checksum"):
        parse_header(b"x" + block[1:], 1024)
    with pytest.raises(TarDamage, match="cut off in a header, at byte 100"):
        parse_header(block[:100])
    negative = bytearray(block)
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (sum(negative[:148]) + 256 + sum(negative[156:]))
    with pytest.raises(TarDamage, match="a negative number"):
        parse_header(bytes(negative))
    for bad in (b"x", b"12 a=b\n", b"0 a=b\n", b"7 a\xffb\n\n", b"99999999999999999999 a=b\n"):
        with pytest.raises(TarDamage, match="cannot be read"):
            parse_attributes(bad)
    assert parse_attributes(b"7 a=\xc3\xbc\n") == {"a": "ü"}


@settings(max_examples=300, deadline=None)
@given(st.text("aB./_", min_size=1, max_size=12))
def test_keys_and_members_are_those_of_the_webdataset_package(name: str) -> None:
    if name.startswith("./") or name.rpartition("/")[2].startswith("."):
        return  # we drop the one, and take no hidden files
    key, member = base_plus_ext(name)
    assert split_name(name) == ((key, member.lower()) if key is not None and member else None)
