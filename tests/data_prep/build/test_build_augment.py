"""Edits that follow from accepted ones, inside a build."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.build import augment
from data_prep.build.config import BuildConfig
from data_prep.build.published import read_dataset
from data_prep.build.report import write_report
from data_prep.build.resolve import edit_key
from data_prep.build.run import Outcome, run_build
from data_prep.build.store import STAGING, open_store
from data_prep.build.verify import collect_garbage, verify
from data_prep.edits.config import EditSetConfig
from data_prep.edits.sets import EditRow, set_rejects
from dreamline.data.sample import Sample, decode_png
from dreamline.storage import hash_folder

Make = Callable[..., BuildConfig]
ALL = {"inverse": True, "chain": True, "merge": True}
THRESHOLDS = [{"score": "liked", "min": 0}, {"score": "contrast", "min": 0.01}]
BOXES = {"red": ((20, 20, 220), 30, 30), "blue": ((220, 30, 20), 150, 160), "green": ((20, 200, 20), 36, 44)}


def draw(pixels: Any, *colours: str) -> Any:
    """The picture with boxes; those of red and green lie together, that of blue apart."""
    pixels = pixels.copy()
    for colour in colours:
        value, top, left = BOXES[colour]
        pixels[top : top + 60, left : left + 60] = value
    return pixels


class Album:
    """A folder of edits: a list, and pictures by name."""

    def __init__(self, folder: Path, make_picture: Callable[..., Any]) -> None:
        self.folder, self.make_picture, self.rows = folder, make_picture, list[dict[str, Any]]()
        folder.mkdir(parents=True)

    def add(self, seed: int, before: tuple[str, ...], after: tuple[str, ...], text: str, licence: str = "CC0") -> None:
        names = [f"{seed} {' '.join(boxes)}.png" for boxes in (before, after)]
        for name, boxes in zip(names, (before, after), strict=True):
            pixels = draw(self.make_picture(seed, 256, 256), *boxes)
            (self.folder / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        self.rows.append({"before": names[0], "after": names[1], "text": text, "licence": licence, "liked": 1})
        self.write()

    def write(self, start: int = 0) -> None:
        (self.folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows[start:]))

    def sources(self, **values: Any) -> list[dict[str, Any]]:
        columns: dict[str, Any] = {"image": "after", "source": "before", "text": "text", "licence": "licence"}
        columns["scores"] = {"liked": "liked"}
        path = str(self.folder / "list.jsonl")
        return [{"kind": "url_list", "path": path, "columns": columns, "pictures": str(self.folder), **values}]


@pytest.fixture
def album(tmp_path: Path, make_picture: Callable[..., Any]) -> Album:
    """Picture 0: red, then blue; and blue at once. Picture 1: red, and green on top of where red would be."""
    made = Album(tmp_path / "in", make_picture)
    made.add(0, (), ("red",), "add a red box")
    made.add(0, ("red",), ("red", "blue"), "add a blue box")
    made.add(0, (), ("blue",), "add a blue box to the wall")
    made.add(1, (), ("red",), "add a red box")
    made.add(1, (), ("green",), "add a green box")
    return made


def rows_of(outcome: Outcome, made: bool = True) -> list[dict[str, Any]]:
    rows = [row for e in outcome.info.manifests for row in pq.read_table(Path(outcome.location) / e.name).to_pylist()]
    return [row for row in rows if (row["augmentation"] is not None) == made]


def sample(outcome: Outcome, row: dict[str, Any]) -> Sample:
    reader = open_store(outcome.location).ranges()
    members = {m["name"]: reader.read(row["shard"], m["offset"], m["size"]) for m in row["members"]}
    reader.close()
    return Sample.from_members(row["key"], members)


def test_the_way_back_and_two_as_one(album: Album, tmp_path: Path, configured: Make) -> None:
    outcome = run_build(configured(tmp_path / "out", sources=album.sources(), edits={"augment": ALL}))
    increment = outcome.increment
    assert (increment.num_inputs, increment.num_kept, increment.num_rejected) == (5, 5, 0)
    made, inputs = rows_of(outcome), {row["key"]: row for row in rows_of(outcome, made=False)}
    assert increment.statistics["augmented"] == {"chain": 1, "inverse": 5, "merge": 1}
    assert increment.statistics["augmented, rejected"] == {"changes_overlap": 1}
    assert increment.num_augmented == outcome.summary()["num_augmented"] == len(made) == 7
    assert outcome.info.num_samples == 12
    assert verify(outcome.location).ok
    for row in made:
        parents = [inputs[key] for key in row["parents"]]
        assert json.loads(row["facts"])["parents"] == row["parents"]
        own, theirs = sample(outcome, row), [sample(outcome, parent) for parent in parents]
        if row["augmentation"] == "inverse":
            assert (own.image, own.source) == (theirs[0].source, theirs[0].image)
            assert own.text == parents[0]["text"].replace("add a", "remove the").replace(" to the", " from the")
            assert row["edit_type"] == "remove"
            assert row["key"] == edit_key(parents[0]["sha256"], parents[0]["source_sha256"], own.text)
        elif row["augmentation"] == "chain":
            assert (own.source, own.image) == (theirs[0].source, theirs[1].image)
            assert own.text == "add a red box, then add a blue box"
        else:
            both = decode_png(theirs[0].source or b"").astype(int)
            for other in theirs:
                pixels = decode_png(other.image)
                changed = (pixels != decode_png(theirs[0].source or b"")).any(2)
                both[changed] = pixels[changed]
            assert np.abs(decode_png(own.image) - both).mean() < 2  # it is stored as a JPEG
            assert set(own.text.split(", then ")) == {"add a red box", "add a blue box to the wall"}
    numbers = write_report(outcome.location)
    assert numbers["builds"][0]["num_augmented"] == 7
    assert sum(numbers["samples_by_bucket"].values()) == 12


def test_nothing_is_made_unless_it_is_asked_for(album: Album, tmp_path: Path, configured: Make) -> None:
    plain = run_build(configured(tmp_path / "out", sources=album.sources()))
    assert (plain.increment.num_augmented, plain.info.num_samples) == (0, 5)
    inverse = run_build(configured(tmp_path / "inverse", sources=album.sources(), edits={"augment": {"inverse": True}}))
    assert inverse.increment.statistics["augmented"] == {"inverse": 5}


def test_what_is_made_is_judged_and_what_came_stays(
    album: Album, tmp_path: Path, configured: Make, make_picture: Callable[..., Any]
) -> None:
    """A pair that a source holds is not made again; evaluation pictures do not come in by the back door."""
    album.add(0, ("red",), (), "Remove the red box")  # says the same as the inverse of the first
    album.add(2, (), ("blue",), "add a blue box")
    album.add(3, (), ("red",), "add a red box")
    exam = tmp_path / "exam"
    exam.mkdir()
    (exam / "seen.png").write_bytes(cv2.imencode(".png", make_picture(2, 256, 256))[1].tobytes())
    (tmp_path / "exam.txt").write_text("remove the blue box from the wall\n")
    against = [{"name": "exam", "images": str(exam), "prompts": str(tmp_path / "exam.txt")}]
    sets = [
        {"kind": "perceptual_duplicates"},
        {"kind": "decontamination", "against": against, "max_distance": 0},
    ]
    rows = [{"kind": "caption", "banned": ["remove the green"]}]
    checks = {"change": {"local_area": [0.005, 0.06]}, "foreground": {}}
    config = configured(
        tmp_path / "out",
        sources=album.sources(),
        filters={"sets": sets, "rows": rows, "scorers": [{"kind": "pixels"}], "thresholds": THRESHOLDS},
        edits={"augment": {"inverse": True, "chain": True}, "checks": checks},
    )
    outcome = run_build(config)
    parents = Counter(row["text"] for row in rows_of(outcome, made=False))
    assert parents["add a blue box"] == 1  # that of the evaluation picture is out
    assert Counter(row["text"] for row in rows_of(outcome)) == {
        "remove the red box": 2,  # of pictures 1 and 3
        "remove the blue box": 1,
        "Remove the red box, then add a blue box to the wall": 1,
    }
    assert outcome.increment.statistics["augmented, rejected"] == {
        "caption_banned": 1,
        "change_too_large": 1,  # both boxes at once
        "contaminated": 1,
        "perceptual_duplicate": 1,
    }
    assert outcome.increment.evidence is not None
    evidence = pq.read_table(Path(outcome.location) / outcome.increment.evidence.name).to_pylist()
    assert Counter(line["row"].partition(" ")[0] for line in evidence)["inverse"] == 2
    assert all("mask.png" in {member["name"] for member in row["members"]} for row in rows_of(outcome))


def test_parents_have_one_licence(tmp_path: Path, configured: Make, make_picture: Callable[..., Any]) -> None:
    album = Album(tmp_path / "in", make_picture)
    album.add(0, (), ("red",), "add a red box", licence="CC0")
    album.add(0, ("red",), ("red", "blue"), "add a blue box", licence="CC-BY-NC-4.0")
    album.add(0, ("red", "blue"), ("blue",), "remove the red box", licence="CC-BY-NC-4.0")
    outcome = run_build(configured(tmp_path / "out", sources=album.sources(), edits={"augment": ALL}))
    made = rows_of(outcome)
    chains = [row["text"] for row in made if row["augmentation"] == "chain"]
    assert chains == ["add a blue box, then remove the red box"]
    assert {row["text"]: row["licence"] for row in made if row["augmentation"] == "inverse"} == {
        "remove the red box": "CC0",
        "remove the blue box": "CC-BY-NC-4.0",
        "add a red box": "CC-BY-NC-4.0",
    }


def test_what_a_later_build_brings_is_augmented_once(album: Album, tmp_path: Path, configured: Make) -> None:
    config = configured(tmp_path / "out", sources=album.sources(), edits={"augment": {"inverse": True}})
    album.write(start=3)
    first = run_build(config)
    assert (first.increment.num_kept, first.increment.num_augmented) == (2, 2)
    album.write()
    second = run_build(config)
    increment = second.increment
    assert (increment.num_inputs, increment.num_kept, increment.num_ignored, increment.num_augmented) == (5, 3, 2, 3)
    assert run_build(config).summary() == second.summary()
    album.add(1, ("red",), (), "remove the red box")  # is there, made of its way back
    third = run_build(config)
    assert (third.increment.num_kept, third.increment.num_ignored, third.increment.num_augmented) == (0, 6, 0)
    assert third.info.num_samples == 10
    assert len({row["key"] for row in rows_of(third) + rows_of(third, made=False)}) == 10
    assert verify(third.location).ok
    assert collect_garbage(third.location) == []
    album.rows = album.rows[:5]
    album.write()
    whole = run_build(config.model_copy(update={"output": str(tmp_path / "whole")}))
    assert whole.info.fingerprint == third.info.fingerprint


def test_sets_of_edits_prefer_what_came() -> None:
    rows = [
        EditRow("b", "S", 7, "remove the red box", "remove"),
        EditRow("a", "S", 7, "remove the red box", "remove", augmented=True),
        EditRow("c", "S", 7, "add a tree", "add", augmented=True),
    ]
    assert [reject.key for reject in set_rejects(rows, EditSetConfig(duplicates=True))] == ["a"]
    assert [reject.key for reject in set_rejects(rows, EditSetConfig(max_per_source=1))] == ["a", "c"]
    caps = EditSetConfig(balance={"remove": 0.5}, balance_by="caps")
    assert [reject.key for reject in set_rejects(rows, caps)] == ["a"]


def build_in_small_spans(config: BuildConfig) -> Outcome:
    augment.SPAN = 10
    return run_build(config)


@pytest.mark.slow
def test_neither_workers_nor_kills_change_anything(
    tmp_path: Path, configured: Make, make_picture: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment, "SPAN", 10)
    album = Album(tmp_path / "in", make_picture)
    for seed in range(12):
        album.add(seed, (), ("red",), "add a red box")
        album.add(seed, ("red",), ("red", "blue"), "add a blue box")
        album.add(seed, (), ("blue",), "add a blue box to the wall")
    sources = [*album.sources(name="all"), *album.sources(name="again")]
    settings: dict[str, Any] = {"sources": sources, "edits": {"augment": ALL}, "shards": {"max_samples": 20}}
    one = run_build(configured(tmp_path / "one", **settings))
    assert one.increment.num_augmented == 12 * 5
    two = run_build(configured(tmp_path / "two", workers=2, **settings))
    assert hash_folder(Path(one.location)) == hash_folder(Path(two.location))
    place = tmp_path / "killed"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_prep.build.run", "pyarrow.parquet", "simplejpeg"])
    kills = 0
    for number in range(1, 6):  # killed as soon as that many spans of augmented samples are staged
        child = context.Process(target=build_in_small_spans, args=(configured(place, **settings),))
        child.start()
        while child.is_alive():
            if len(list(place.glob(f"{STAGING}/*/index/augment-*.parquet"))) >= number and child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
                kills += 1
                break
            child.join(0.002)
        child.join(60)
        published = read_dataset(open_store(str(place)))
        assert published is None or verify(str(place)).ok
    assert kills > 2
    run_build(configured(place, **settings))
    assert hash_folder(place) == hash_folder(Path(one.location))
