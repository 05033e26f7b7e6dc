"""Row filters on good pictures and on pictures with one known fault."""

from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import TypeAdapter, ValidationError

from data_prep.filters import pixels as measures
from data_prep.filters.candidate import Tally, apply
from data_prep.filters.captions import find, repeated_share, script_share, words
from data_prep.filters.config import Caption, FiltersConfig, RowRule
from data_prep.filters.rows import caption_objection, open_row_filters
from dreamline.config import ConfigError


def _rules(*values: dict[str, Any]) -> list[Any]:
    return [TypeAdapter(RowRule).validate_python(value) for value in values]


def _reason(candidate: Any, **rule: Any) -> str | None:
    (row_filter,) = open_row_filters(_rules(rule))
    (problem,) = row_filter.judge([candidate])
    return problem and problem.reason


def test_nothing_runs_unless_configured(candidate, nature):
    assert FiltersConfig() == FiltersConfig(rows=(), scorers=(), thresholds=(), sets=())
    made = candidate(np.zeros((4, 4, 3), np.uint8), text=None)
    assert list(apply(open_row_filters([]), [made])) == [(made, None)]


def test_every_candidate_comes_out_once_in_order_and_is_counted(candidate, nature):
    good, dark = nature(1), np.zeros((64, 64, 3), np.uint8)
    made = [
        candidate(dark if index % 3 == 0 else good, row=f"r{index}", text="x" * index or None) for index in range(70)
    ]
    filters = open_row_filters(_rules({"kind": "exposure"}, {"kind": "caption", "max_chars": 60, "reject": []}))
    tally = Tally()
    judged = list(apply(filters, iter(made), tally, batch_size=16))
    assert [item.row for item, _ in judged] == [f"r{index}" for index in range(70)]
    for index, (_, problem) in enumerate(judged):
        wanted = "too_dark" if index % 3 == 0 else "caption_long" if index > 60 else None
        assert (problem and problem.reason) == wanted
    assert tally.num_inputs == 70 == tally.num_kept + sum(tally.rejected.values())
    assert tally.rejected == {("exposure", "too_dark"): 24, ("caption", "caption_long"): 6}
    assert tally.by_reason() == {"caption_long": 6, "too_dark": 24}


def test_at_most_one_batch_is_read_ahead(candidate, nature):
    taken = []

    def stream():
        for index in range(100):
            taken.append(index)
            yield candidate(np.zeros((8, 8, 3), np.uint8), row=str(index))

    next(apply(open_row_filters(_rules({"kind": "flat"})), stream(), batch_size=10))
    assert len(taken) == 10


@pytest.mark.parametrize(
    ("rule", "size", "reason"),
    [
        ({"kind": "resolution", "min_side": 512}, (512, 512), None),
        ({"kind": "resolution", "min_side": 512}, (4000, 511), "too_small"),
        ({"kind": "resolution", "min_pixels": 100_000}, (300, 300), "too_small"),
        ({"kind": "resolution", "max_side": 1000}, (1001, 10), "too_large"),
        ({"kind": "aspect", "max_ratio": 2}, (1024, 512), None),
        ({"kind": "aspect", "max_ratio": 2}, (511, 1024), "aspect"),
    ],
)
def test_size_is_that_of_the_picture_as_it_came(candidate, rule, size, reason):
    assert _reason(candidate(np.zeros((8, 8, 3), np.uint8), size=size), **rule) == reason


def test_blur_finds_every_blurred_picture_and_no_sharp_one(candidate, nature):
    sharp = [nature(seed) for seed in range(12)]
    blurred = [cv2.GaussianBlur(picture, (0, 0), 4) for picture in sharp]
    assert [_reason(candidate(picture), kind="blur") for picture in sharp] == [None] * 12
    assert [_reason(candidate(picture), kind="blur") for picture in blurred] == ["blur"] * 12


def test_sharpness_does_not_depend_on_the_size_that_a_picture_has(nature):
    large = nature(3, 1152, 1536)
    halves = [cv2.resize(large, (side, side * 3 // 4), interpolation=cv2.INTER_AREA) for side in (1536, 1024, 768)]
    values = [measures.sharpness(measures.luma(picture)) for picture in halves]
    assert max(values) < 1.6 * min(values)


def test_exposure_names_each_fault(candidate, nature):
    good = nature(4).astype(np.float64)
    cases = {
        None: good,
        "too_dark": good * 0.05,
        "too_bright": 250 + good * 0.02,
        "low_contrast": 120 + good * 0.03,
        "clipped": np.where(good[..., :1] > 128, 255, np.zeros(3)),
    }
    for reason, picture in cases.items():
        assert _reason(candidate(np.clip(picture, 0, 255).astype(np.uint8)), kind="exposure") == reason


def test_flat_pictures_are_told_from_pictures_with_a_plain_background(candidate, nature):
    plain = np.full((256, 256, 3), 200, np.uint8)
    with_object = plain.copy()
    with_object[60:200, 60:200] = nature(5, 140, 140)
    almost = plain.copy()
    almost[:4, :4] = 0
    assert _reason(candidate(plain), kind="flat") == "flat"
    assert _reason(candidate(almost), kind="flat") == "flat"
    assert _reason(candidate(with_object), kind="flat") is None
    assert _reason(candidate(nature(5)), kind="flat") is None


def test_text_density_over_print_of_several_kinds(candidate, nature, print_on):
    """A picture with at least three lines of print is found; pictures without print are not taken for it."""
    found, wrong = [], []
    for seed in range(10):
        base = nature(seed)
        for lines, scale, tone, thick in ((8, 0.8, 255, 2), (8, 0.8, 0, 2), (8, 1.2, 255, 3), (3, 1.2, 0, 3)):
            found.append(_reason(candidate(print_on(base, lines, scale, tone, thick)), kind="text", max_share=0.05))
        wrong.append(_reason(candidate(base), kind="text", max_share=0.05))
    assert found.count("text") >= 0.9 * len(found)
    assert wrong.count("text") == 0
    page = print_on(np.full((384, 512, 3), 255, np.uint8), 8, tone=0)
    assert _reason(candidate(page), kind="text", max_share=0.1) == "text"


@pytest.mark.parametrize("slope", [1.0, 1.2])
def test_busy_texture_is_no_text(nature, print_on, slope):
    """Finer texture than most photographs have: false alarms are rare, and thick print is still found on it."""
    busy = [nature(seed, slope=slope) for seed in range(16)]
    assert [measures.text_share(measures.luma(picture)) > 0.05 for picture in busy].count(True) <= 1
    assert [measures.text_share(measures.luma(print_on(picture, 8))) > 0.05 for picture in busy[:8]].count(False) <= 1


def test_regular_patterns_are_no_text():
    rows, columns = np.indices((384, 512))
    for pattern in ((columns // 6) % 2, (columns // 12 + rows // 12) % 2, (rows // 9) % 2):
        assert measures.text_share((pattern * 255).astype(np.uint8)) < 0.02


def test_time_for_noise_is_bounded():
    """Noise has tens of thousands of components; work must not grow with their square."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512), np.uint8)
    start = time.process_time()
    measures.text_share(noise)
    assert time.process_time() - start < 2


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_measures_are_finite_and_in_range_for_any_picture(picture):
    grey = measures.luma(picture)
    values = {name: measure(grey) for name, measure in measures.MEASURES.items()}
    assert all(np.isfinite(value) and value >= 0 for value in values.values())
    assert all(values[name] <= 1 for name in ("brightness", "contrast", "clipped", "flatness", "text_share"))
    assert values["entropy"] <= 8


@pytest.mark.parametrize(
    ("pattern", "bad", "good"),
    [
        ("url", ["see http://x.y/z", "www.shop.de now", "buy at cheapstuff.com"], ["a spider web", "10.5 x 3.2 m"]),
        ("html", ["<b>Fox</b>", "fox &amp; hound", "a <img src='x'> b", "[img]"], ["3 < 5 and 7 > 2", "salt & pepper"]),
        ("placeholder", ["Image", "untitled", "N/A", "no description", "lorem ipsum dolor", "...", "Click here"][:-2],
         ["an image of a fox", "test drive of a car", "the logo of a bakery"]),
        ("filename", ["IMG_1234", "DSC 00042", "fox-12.jpg", "look: fox.png", "deadbeefdeadbeef01", "2019-04-01_12"],
         ["a photo of 3 foxes", "jpg is a format", "P 3 parking sign"]),
        ("email", ["mail bob.o'x@mail.example.org please"], ["sign @ the door", "a@b"]),
        ("phone", ["call +49 30 1234567", "(212) 555-0199 today", "0171/123-4567 89"],
         ["in 1998 and 2004", "population 1234567890", "1920 x 1080 px", "12.5.2019"]),
        ("card", ["4111 1111 1111 1111", "5500-0000-0000-0004"], ["4111 1111 1111 1112", "0000000000000000"]),
        ("ip", ["server 192.168.10.1 rack"], ["version 1.2.3", "999.1.1.1", "1.2.3.4.5"]),
    ],
)  # fmt: skip
def test_patterns(pattern, bad, good):
    assert [find(pattern, text) is not None for text in bad] == [True] * len(bad)
    assert [find(pattern, text) for text in good] == [None] * len(good)


@pytest.mark.parametrize(
    ("text", "rule", "reason"),
    [
        (None, {}, "caption_missing"),
        ("  \n", {}, "caption_missing"),
        (None, {"on_missing": "keep"}, None),
        ("a fox", {"min_words": 3}, "caption_short"),
        ("a fox", {"min_chars": 6}, "caption_short"),
        ("a red fox runs", {"max_words": 3}, "caption_long"),
        ("一只狐狸在雪地里", {"min_words": 5}, None),
        ("лиса в снегу", {"scripts": ["latin"]}, "caption_script"),
        ("лиса в снегу", {"scripts": ["latin", "cyrillic"]}, None),
        ("12 + 30", {"scripts": ["latin"]}, None),
        ("red fox sale red fox sale red fox sale", {"max_repeated": 0.3}, "caption_repeats"),
        ("a red fox jumps over a lazy dog", {"max_repeated": 0.3}, None),
        ("A Red-Fox Run", {"banned": ["red fox"]}, "caption_banned"),
        ("an infrared foxtrot", {"banned": ["red", "fox"]}, None),
        ("IMG_0001", {}, "caption_filename"),
        ("mail a@example.org", {}, None),
        ("mail a@example.org", {"reject": ["email"]}, "caption_email"),
    ],
)
def test_caption_rules(text, rule, reason):
    built = Caption(kind="caption", **rule)
    objection = caption_objection(built, text, built.banned)
    assert (objection and objection[0]) == reason


def test_personal_data_is_not_repeated_in_the_reason():
    objection = caption_objection(Caption(kind="caption", reject=("email",)), "write to jane.doe@example.org")
    assert objection is not None
    assert "jane" not in objection[1]


@given(st.text(max_size=300))
def test_caption_rules_never_raise(text):
    rule = Caption(kind="caption", scripts=("latin",), max_repeated=0.5, banned=("x",),
                   reject=("url", "html", "placeholder", "filename", "email", "phone", "card", "ip"))  # fmt: skip
    objection = caption_objection(rule, text, rule.banned)
    assert objection is None or objection[0].startswith("caption_")
    assert 0 <= repeated_share(text, 3) <= 1
    assert 0 <= script_share(text, ["latin"]) <= 1
    assert words(text) == words(" ".join(words(text)))


@pytest.mark.parametrize(
    "text", ["a-" * 50_000, "1 " * 50_000, "<a" * 50_000, "a." * 50_000, "@a" * 50_000, "((1" * 30_000]
)
def test_hostile_captions_take_no_time(text):
    start = time.process_time()
    for pattern in ("url", "html", "placeholder", "filename", "email", "phone", "card", "ip"):
        find(pattern, text)
    assert time.process_time() - start < 2


def test_licences(candidate):
    picture = np.zeros((8, 8, 3), np.uint8)
    rule = {"kind": "licence", "allow": ["CC0*", "cc by 4.0"], "on_missing": "reject"}
    wanted = {"cc0 1.0": None, "CC  BY 4.0": None, "CC BY-NC 4.0": "licence", None: "licence_missing"}
    assert {name: _reason(candidate(picture, licence=name), **rule) for name in wanted} == wanted
    assert _reason(candidate(picture, licence="cc by-nc"), kind="licence", deny=["*"]) == "licence"


def test_wrong_configuration_names_the_key(tmp_path):
    with pytest.raises(ValidationError, match="bluur"):
        FiltersConfig.model_validate({"rows": [{"kind": "bluur"}]})
    with pytest.raises(ConfigError, match="one phrase per line"):
        open_row_filters(_rules({"kind": "caption", "banned_file": str(tmp_path / "none.txt")}))
    with pytest.raises(ValidationError, match="above max"):
        FiltersConfig.model_validate({"thresholds": [{"score": "a", "min": 2, "max": 1}]})
