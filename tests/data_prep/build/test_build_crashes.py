"""A picture that ends the process it is decoded in is rejected; a process killed from outside is not missed."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from data_prep.build.alone import Alone, Died, Place
from data_prep.build.config import BuildConfig
from data_prep.build.guilty import NOBODY
from data_prep.build.process import Processing, SpanTask
from data_prep.build.published import read_dataset
from data_prep.build.run import run_build
from data_prep.build.store import STAGING, open_store
from data_prep.build.tables import known_hashes
from data_prep.build.verify import verify
from data_prep.sources.reader import open_source
from data_prep.sources.text_table import PEEK
from dreamline.config import ConfigError
from dreamline.storage import hash_folder

ROOT = Path(__file__).parents[3]
Make = Callable[..., BuildConfig]

# Python imports a module of this name at the start of every process: of Ray's workers, too, and of those we start. The
# library that decodes then crashes on pictures that hold a mark, for good or the first time only.
SITE = """
import ctypes, json, os, sys
import simplejpeg

loads = json.loads

def crashing_loads(text, **named):
    if "CRASH THE READER" in (text if isinstance(text, str) else text.decode(errors="replace")):
        ctypes.string_at(0)
    return loads(text, **named)

json.loads = crashing_loads

real = simplejpeg.decode_jpeg_header

def decode_jpeg_header(content, *arguments, **named):
    if b"CRASH" in content:
        ctypes.string_at(0)
    if b"FAIL LATER" in content:  # in an edit that is made of accepted ones
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename.endswith("derive.py"):
                ctypes.string_at(0)
            frame = frame.f_back
    if b"KILL ONCE" in content:
        try:
            os.close(os.open(os.environ["KILLED_ONCE"], os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), 9)
        except FileExistsError:
            pass
    return real(content, *arguments, **named)

simplejpeg.decode_jpeg_header = decode_jpeg_header
"""
PROGRAM = """
import sys
from data_prep.build.config import load_build
from data_prep.build.run import run_build

if __name__ == "__main__":
    run_build(load_build(sys.argv[1]), lambda step: print(step.text, flush=True))
"""


@pytest.fixture
def build(tmp_path: Path) -> Callable[[BuildConfig], subprocess.CompletedProcess[str]]:
    """Run a build in a process in which marked pictures crash the decoder."""
    place = tmp_path / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(SITE)
    (place / "program.py").write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"PYTHONPATH": f"{place}{os.pathsep}{ROOT}", "KILLED_ONCE": str(tmp_path / "killed once")}
    environment["RAY_raylet_start_wait_time_s"] = "120"

    def run(config: BuildConfig) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        command = [sys.executable, str(place / "program.py"), str(file)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)

    return run


@pytest.fixture
def sources(tmp_path: Path, pictures: Callable[[Path, range], Path]) -> list[dict[str, Any]]:
    return [
        {
            "kind": "folder",
            "caption": "filename",
            "name": f"part-{number}",
            "path": str(pictures(tmp_path / f"part {number}", range(number * 20, number * 20 + 20))),
        }
        for number in range(3)
    ]


def mark(source: dict[str, Any], seed: int, words: bytes) -> None:
    """Put words into a picture's file where a decoder passes them over."""
    path = Path(source["path"]) / f"picture {seed:03d}.jpg"
    content = path.read_bytes()
    comment = b"\xff\xfe" + (len(words) + 2).to_bytes(2, "big") + words
    path.write_bytes(content[:2] + comment + content[2:])


def tars(place: Path) -> dict[str, str]:
    return {name: digest for name, digest in hash_folder(place).items() if name.endswith(".tar")}


def rejects(place: Path) -> dict[str, tuple[str, str]]:
    info = read_dataset(open_store(str(place)))
    assert info is not None
    rows = pq.read_table(place / info.rejects.name).to_pylist()
    return {row["row"].rpartition("/")[2]: (row["reason"], row["detail"]) for row in rows}


@pytest.mark.slow
def test_crashing_rows_are_rejected_and_nothing_else_with_any_number_of_workers(
    tmp_path: Path, configured: Make, sources: list[dict[str, Any]], build: Any
) -> None:
    mark(sources[0], 7, b"CRASH")
    for seed in (40, 41, 59):  # neighbours, the first and the last
        mark(sources[2], seed, b"CRASH")
    mark(sources[1], 25, b"KILL ONCE")
    lines = [{"image": f"picture {20 + n % 20:03d}.jpg", "text": str(n)} for n in range(PEEK + 5)]
    lines[-2]["text"] = "CRASH THE READER"
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    columns = {"image": "image", "text": "text"}
    listed = {"kind": "url_list", "path": str(tmp_path / "list.jsonl"), "pictures": sources[1]["path"]}
    sources.append({**listed, "columns": columns, "name": "list"})
    settings: dict[str, Any] = {"sources": sources, "shards": {"max_samples": 25}}
    one = build(configured(tmp_path / "one", **settings))
    assert one.returncode == -signal.SIGSEGV
    assert read_dataset(open_store(str(tmp_path / "one"))) is None
    one = build(configured(tmp_path / "one", **settings))  # the same command again finds the rows
    assert one.returncode == 0, one.stderr[-3000:]
    assert "an earlier attempt did not end" in one.stdout
    (tmp_path / "killed once").unlink()
    two = build(configured(tmp_path / "two", **{**settings, "workers": 2}))
    assert two.returncode == 0, two.stderr[-3000:]
    assert (tmp_path / "killed once").exists()
    assert hash_folder(tmp_path / "one") == hash_folder(tmp_path / "two")
    found = {name: why for name, why in rejects(tmp_path / "two").items() if why[0] == "crashed"}
    working, reading = ("working on it ends the process (SIGSEGV)", "reading the source from here on ends the process")
    assert {name: why[1] for name, why in found.items()} == {
        **{f"picture {seed:03d}.jpg": working for seed in (7, 40, 41, 59)},
        **{f"003-000000+{row}": f"{reading} (SIGSEGV)" for row in (PEEK + 3, PEEK + 4)},
    }
    info = read_dataset(open_store(str(tmp_path / "two")))
    assert info is not None
    assert (info.increments[0].num_inputs, info.num_samples) == (60 + PEEK + 5, 56)
    assert verify(str(tmp_path / "two")).ok
    assert not (tmp_path / "two" / STAGING).exists()
    for number, seed in ((0, 7), (2, 40), (2, 41), (2, 59)):
        (Path(sources[number]["path"]) / f"picture {seed:03d}.jpg").unlink()
    settings["sources"] = sources[:3]
    without = run_build(configured(tmp_path / "without", **settings))  # in this process, where nothing crashes
    assert without.increment.num_rejected == 0
    assert without.info.fingerprint == info.fingerprint
    assert tars(tmp_path / "without") == tars(tmp_path / "two")


@pytest.mark.slow
def test_edits_that_crash_as_they_are_made_are_rejected_among_the_augmented(
    tmp_path: Path, configured: Make, sources: list[dict[str, Any]], build: Any
) -> None:
    """Made of pictures that were in order when they came as an input. After one crash no more are needed."""
    listed = []
    for source in sources[:2]:
        names = sorted(path.name for path in Path(source["path"]).iterdir())[:10]
        text = "add a red box"
        lines = [{"image": a, "source": b, "text": text} for a, b in zip(names[::2], names[1::2], strict=True)]
        path = Path(source["path"]) / "list.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        columns = {"image": "image", "source": "source", "text": "text"}
        listed.append({"kind": "url_list", "path": str(path), "pictures": source["path"], "columns": columns})
    mark(sources[0], 2, b"FAIL LATER")
    mark(sources[1], 21, b"FAIL LATER")
    mark(sources[0], 4, b"CRASH")
    settings: dict[str, Any] = {"sources": listed, "edits": {"augment": {"inverse": True}}}
    assert build(configured(tmp_path / "one", **settings)).returncode == -signal.SIGSEGV
    assert read_dataset(open_store(str(tmp_path / "one"))) is None
    one = build(configured(tmp_path / "one", **settings))
    assert one.returncode == 0, one.stderr[-3000:]
    two = build(configured(tmp_path / "two", **{**settings, "workers": 2}))
    assert two.returncode == 0, two.stderr[-3000:]
    assert hash_folder(tmp_path / "one") == hash_folder(tmp_path / "two")
    info = read_dataset(open_store(str(tmp_path / "one")))
    assert info is not None
    increment = info.increments[0]
    assert (increment.num_inputs, increment.num_kept, increment.num_augmented) == (10, 9, 7)
    assert increment.rejected == {"crashed": 1}
    assert increment.statistics["augmented, rejected"] == {"crashed": 2}
    assert verify(str(tmp_path / "one")).ok


def test_rows_that_are_examined_are_at_work_one_at_a_time(
    tmp_path: Path, configured: Make, pictures: Callable[[Path, range], Path], vlm: Any
) -> None:
    """Also where a captioner is asked for several at once: else the wrong row would be taken for the guilty one."""
    vlm.answers = lambda means, text: ("a caption", "stop")
    folder = pictures(tmp_path / "in", range(5))
    config = configured(tmp_path / "out", folder, captions={"endpoint": vlm.endpoint(), "when": "always"})
    (span,) = open_source(config.sources[0]).spans()
    work = Processing(config, "prefix/", known_hashes(open_store(config.output), None), 1)
    noted: list[tuple[Place, int]] = []
    work.examine(SpanTask("a", 0, span), NOBODY, range(1, 4), 2, lambda place: noted.append((place, len(vlm.asked))))
    done = [(place, asked) for place, asked in noted if not place[2]]
    assert done == [((1, 3, 0), 0), ((1, 2, 0), 0), ((2, 3, 0), 1), ((3, 4, 0), 2), ((3, 4, 0), 2)]
    assert [place[0] for place, _ in noted if place[2]] == [0, 1, 2, 3]


ENDINGS = """
import os, signal
from data_prep.sources.text_table import PEEK
from dreamline.config import ConfigError

def end(note, how):
    note((3,))
    note((4,))
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "exit":
        os._exit(7)
    if how == "error":
        raise ConfigError(how)
    return how, os.getpid()
"""


def test_a_process_of_its_own_says_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "several_endings.py").write_text(ENDINGS)
    monkeypatch.syspath_prepend(tmp_path)
    end = importlib.import_module("several_endings").end
    with Alone() as process:
        first = process.run(end, "well")
        assert process.run(end, "well") == first == ("well", first[1])
        assert first[1] != os.getpid()
        with pytest.raises(Died) as died:
            process.run(end, "segfault")
        assert (died.value.place, died.value.how) == ((4,), "SIGSEGV")
        with pytest.raises(Died, match="exit code 7"):
            process.run(end, "exit")
        with pytest.raises(ConfigError, match="error"):
            process.run(end, "error")
        assert process.run(end, "well")[1] != first[1]
