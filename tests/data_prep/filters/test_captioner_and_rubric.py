"""Captions and rubric scores from a real server on this machine; the rubric's answers are read strictly."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.filters.captioner import PROMPT, Captioner, ModelCaption
from data_prep.filters.config import CaptionerConfig, FiltersConfig, Rubric
from data_prep.filters.rubric import CRITERIA, RubricScorer, Unparsable, geometric_mean, parse
from data_prep.filters.scorers import open_scorer, scored
from data_prep.record import Problem
from dreamline.config import ConfigError


def _grey(value: int) -> np.ndarray:
    return np.full((16, 16, 3), value, np.uint8)


def test_captions_come_in_order_with_model_and_prompt(vlm, candidate, tmp_path):
    vlm.answers = lambda means, text: (f"grey {means[0]:.0f}", "length" if means[0] > 180 else "stop")
    made = [candidate(_grey(10 * index), row=f"r{index}") for index in range(1, 20)]
    results = list(Captioner(CaptionerConfig(endpoint=vlm.endpoint())).caption(iter(made)))
    digest = hashlib.sha256(PROMPT.encode()).hexdigest()
    assert results[:18] == [ModelCaption(f"grey {10 * index}", "tiny-vl@1", digest) for index in range(1, 19)]
    assert isinstance(results[18], Problem)
    assert (results[18].row, results[18].reason) == ("r19", "captioner_cut_off")
    own = tmp_path / "prompt.txt"
    own.write_text("Say the colour.\n")
    vlm.answers = lambda means, text: (text, "stop")
    (result,) = Captioner(CaptionerConfig(endpoint=vlm.endpoint(), prompt_file=str(own))).caption(made[:1])
    assert result == ModelCaption("Say the colour.", "tiny-vl@1", hashlib.sha256(b"Say the colour.").hexdigest())
    with pytest.raises(ConfigError, match="prompt_file"):
        Captioner(CaptionerConfig(endpoint=vlm.endpoint(), prompt_file=str(tmp_path / "none")))


def test_a_refused_caption_is_a_problem_of_its_row(vlm, candidate):
    vlm.answers = lambda means, text: ("" if means[0] > 100 else "dark", "stop")
    made = [candidate(_grey(value), row=f"r{value}") for value in (50, 200)]
    first, second = Captioner(CaptionerConfig(endpoint=vlm.endpoint())).caption(made)
    assert isinstance(first, ModelCaption)
    assert isinstance(second, Problem)
    assert (second.row, second.reason) == ("r200", "captioner_status")


def test_rubric_scores_edits_and_pictures(vlm, candidate):
    """The scores are those of the right row; what cannot be read is missing, and why is counted."""

    def answers(means, text):
        if "edited" in text:
            assert "make it {text} day" in text
            assert len(means) == 2
            assert means[0] < means[1]  # the source comes first
            return json.dumps(dict(zip(CRITERIA, (8, 2, 4, 4), strict=True))), "stop"
        return {1: ("I would say 8 of 10", "stop"), 2: ("", "stop")}.get(
            round(means[0] / 50), (json.dumps(dict.fromkeys(CRITERIA, 9)), "stop")
        )

    vlm.answers = answers
    made = [
        candidate(_grey(200), row="edit", source=_grey(20), text="make it {text} day"),
        candidate(_grey(50), row="chatty"),
        candidate(_grey(100), row="refused"),
        candidate(_grey(150), row="no text", text=None),
        candidate(_grey(200), row="good"),
    ]
    rule = {"kind": "rubric", "name": "vlm", "endpoint": vlm.endpoint()}
    scorer = open_scorer(FiltersConfig.model_validate({"scorers": [rule]}).scorers[0])
    assert isinstance(scorer, RubricScorer)
    done = {item.row: item.scores for item in scored([scorer], made)}
    assert done["edit"] == pytest.approx(
        {"vlm": 4.0, "vlm_compliance": 8, "vlm_preservation": 2, "vlm_realism": 4, "vlm_quality": 4}
    )
    assert done["good"]["vlm"] == pytest.approx(9)
    assert done["chatty"] == done["refused"] == done["no text"] == {}
    assert scorer.missing == {"unparsable": 1, "endpoint_status": 1, "no_text": 1}


def test_the_version_follows_model_and_prompt(vlm, tmp_path):
    own = tmp_path / "prompt.txt"
    own.write_text("Judge {text}")
    rules = [
        {"endpoint": vlm.endpoint()},
        {"endpoint": vlm.endpoint(model="other")},
        {"endpoint": vlm.endpoint(), "prompt_file": str(own)},
        {"endpoint": vlm.endpoint(concurrency=1)},
    ]
    versions = [RubricScorer(Rubric.model_validate({"kind": "rubric", **rule})).version for rule in rules]
    assert len(set(versions[:3])) == 3
    assert versions[3] == versions[0]


GOOD = {"compliance": 7, "preservation": 8.5, "realism": 0, "quality": 10}


@pytest.mark.parametrize(
    "text", [json.dumps(GOOD), f"\n {json.dumps(GOOD, indent=1)}\n", f"```json\n{json.dumps(GOOD)}\n```"]
)
def test_right_answers(text):
    assert parse(text) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8, 8, 8, 8",
        "[8, 8, 8, 8]",
        f"Sure! {json.dumps(GOOD)}",
        f"{json.dumps(GOOD)} {json.dumps(GOOD)}",
        json.dumps({**GOOD, "quality": "10"}),
        json.dumps({**GOOD, "quality": True}),
        json.dumps({**GOOD, "quality": None}),
        json.dumps({**GOOD, "quality": 11}),
        json.dumps({**GOOD, "quality": -1}),
        json.dumps({**GOOD, "quality": float("nan")}),
        json.dumps({**GOOD, "quality": float("inf")}),
        json.dumps({**GOOD, "extra": 1}),
        json.dumps({"compliance": 7, "preservation": 8, "realism": 1}),
        json.dumps(GOOD)[:-1] + ', "quality": 3}',
        "[" * 100_000,
        '{"compliance": 1' + "0" * 5000 + "}",
    ],
)
def test_wrong_answers(text):
    assert isinstance(parse(text), Unparsable)


@given(st.text())
def test_any_answer_is_read_or_refused(text):
    assert isinstance(parse(text), Unparsable | dict)


@given(st.lists(st.floats(0, 10), min_size=4, max_size=4))
def test_geometric_mean_is_between_the_extremes(scores):
    mean = geometric_mean(scores)
    assert min(scores) - 1e-9 <= mean <= max(scores) + 1e-9
    assert (mean == 0) == (min(scores) == 0)
