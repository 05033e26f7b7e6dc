"""The filter bank: each fault is named by its own reason, clean pairs pass."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_prep.edits.calibration_pairs import PHOTO_TYPES, EditPair, jpeg, photo_pair, scene_pair
from data_prep.edits.checks import EditChecks
from data_prep.edits.config import EditChecksConfig, Scores
from data_prep.edits.corruptions import CORRUPTIONS
from data_prep.edits.registration import register
from data_prep.edits.verdict import EditVerdict
from data_prep.edits.vocabulary import EditType

SIDE = 256
CHECKS = EditChecks(EditChecksConfig.full())
WEAK = {"shift 1 px of 512", "tint 8..11 levels"}  # near the limits; their rates are measured by the calibration


def judge(pair: EditPair, with_mask: bool = False) -> EditVerdict:
    return CHECKS.judge(
        pair.source, pair.target, pair.instruction, pair.type, pair.mask if with_mask else None, exhaustive=True
    )


def photo(kind: EditType, number: int = 0) -> EditPair:
    return photo_pair(np.random.default_rng((5, number)), kind, SIDE)


@pytest.mark.parametrize("kind", PHOTO_TYPES)
def test_clean_photographs_pass(kind: EditType) -> None:
    for number in range(2):
        verdict = judge(photo(kind, number))
        assert verdict.reasons == (), verdict.detail
        assert verdict.mask is not None
        assert verdict.mask.shape == (SIDE, SIDE)


def test_clean_scenes_pass() -> None:
    for number in range(10):
        pair = scene_pair(np.random.default_rng((6, number)), SIDE)
        if pair.type != "style":  # shapes of this world are outlined or filled: a style that changes little
            assert judge(pair).reasons == (), pair.instruction


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - WEAK))
def test_each_fault_is_named(name: str) -> None:
    fault = CORRUPTIONS[name]
    rng = np.random.default_rng(2)
    pair = fault.apply(photo(fault.types[0], 2), rng)
    verdict = judge(pair, fault.with_mask)
    assert set(verdict.reasons) & fault.reasons, (verdict.reasons, dict(verdict.measures))
    assert verdict.mask is None


def test_by_default_only_integrity_rejects() -> None:
    checks, pair = EditChecks(EditChecksConfig()), photo("add")
    shifted = CORRUPTIONS["shift 8 px of 512"].apply(pair, np.random.default_rng(0))
    assert checks.judge(shifted.source, shifted.target, "add a ball", "add") == EditVerdict(None, "", {}, None)
    for text, reason in {"": "no_instruction", "??!": "no_instruction", "x": "instruction_length"}.items():
        assert checks.judge(pair.source, pair.target, text).reason == reason
    assert checks.judge(pair.source, pair.target, "I’m sorry, I cannot do that").reason == "refusal"
    assert checks.judge(pair.source, pair.source.copy(), "add a ball").reason == "identical"
    assert checks.judge(pair.source, pair.target[:-1], "add a ball").reason == "geometry"
    assert checks.judge(pair.source, pair.target[..., 0], "add a ball").reason == "not_rgb8"
    assert checks.judge(pair.source[:8, :8], pair.target[:8, :8], "add a ball").reason == "too_small"
    assert checks.judge(pair.source, pair.target, "add a ball", mask=pair.mask[1:]).reason == "mask_geometry"


def test_detail_names_figure_and_limit() -> None:
    pair = photo("add")
    verdict = judge(replace(pair, type="remove"))
    assert verdict.reason == "nothing_removed"
    assert "exp(+" in verdict.detail


def test_not_exhaustive_stops_at_the_first_reason() -> None:
    pair = CORRUPTIONS["jpeg quality 8..20"].apply(photo("replace"), np.random.default_rng(0))
    first = CHECKS.judge(pair.source, pair.target, pair.instruction, pair.type)
    every = judge(pair)
    assert first.reasons == every.reasons[:1]
    assert len(every.reasons) > 1
    assert set(first.measures) < set(every.measures)


@pytest.mark.parametrize("flip", [np.fliplr, np.flipud])
def test_mirrored_pairs_are_judged_alike(flip: type(np.fliplr)) -> None:
    for kind in ("recolour", "remove"):
        pair = photo(kind, 3)
        mirrored = replace(
            pair,
            **{name: np.ascontiguousarray(flip(getattr(pair, name))) for name in ("source", "target", "mask")},
        )
        one, two = judge(pair, with_mask=True), judge(mirrored, with_mask=True)
        assert one.reasons == two.reasons
        for name, value in one.measures.items():
            tolerance = 0.06 if name == "seam" else 0.02 * max(1.0, abs(value))
            assert two.measures[name] == pytest.approx(value, abs=tolerance), name


def test_swapping_source_and_target_swaps_add_and_remove() -> None:
    pair = photo("add", 1)
    back = replace(pair, source=pair.target, target=pair.source)
    there, here = judge(pair).measures, judge(replace(back, type="remove")).measures
    assert here["outline"] == pytest.approx(-there["outline"], abs=1e-3)
    assert here["edge_energy"] == pytest.approx(-there["edge_energy"], abs=1e-3)
    assert judge(back).reason == "nothing_added"


def test_motion_is_measured_in_px_of_256() -> None:
    pair = photo("recolour")
    step = np.array([[1, 0, 3.0], [0, 1, -1.0]], np.float32)
    moved = cv2.warpAffine(pair.source, step, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    motion = register(pair.source, np.asarray(moved, np.uint8))
    assert motion.shift == pytest.approx(np.hypot(3, 1), abs=0.2)
    assert abs(motion.zoom) < 2e-3
    large = register(*(cv2.resize(pixels, (512, 512)) for pixels in (pair.source, moved)))
    assert large.shift == pytest.approx(motion.shift, abs=0.2)
    turned = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), 0, 1.02)
    zoomed = cv2.warpAffine(pair.source, turned, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    assert register(pair.source, np.asarray(zoomed, np.uint8)).zoom == pytest.approx(0.02, abs=3e-3)


def test_one_moved_object_on_a_plain_ground_is_no_shift() -> None:
    source, target = np.full((2, SIDE, SIDE, 3), 200, np.uint8)
    cv2.circle(source, (70, 70), 30, (180, 20, 20), -1)
    cv2.circle(target, (78, 74), 30, (180, 20, 20), -1)
    verdict = CHECKS.judge(source, target, "move the circle", "move", exhaustive=True)
    assert "shifted" not in verdict.reasons


def test_a_given_mask_says_where_the_background_is() -> None:
    pair = photo("replace", 4)
    verdict = judge(pair, with_mask=True)
    assert verdict.measures["change_in_given"] > 0.9
    elsewhere = replace(pair, mask=np.roll(~pair.mask, 0))
    assert "outside_mask" in judge(elsewhere, with_mask=True).reasons


def test_scores_enter_as_measures_and_limits() -> None:
    pair, rubric = photo("add"), {"follows": 4.0, "preserves": 1.0}
    config = EditChecksConfig(scores=Scores(min={"follows": 3}, rubric=("follows", "preserves"), min_rubric=2.5))
    checks = EditChecks(config)

    def reason(scores: dict[str, float]) -> str | None:
        verdict = checks.judge(pair.source, pair.target, "add a ball", "add", scores=scores)
        assert dict(verdict.measures) == scores
        return verdict.reason

    assert reason(rubric) == "score_rubric"  # the geometric mean is 2
    assert reason(rubric | {"preserves": 2.0}) is None
    assert reason(rubric | {"follows": 2.0}) == "score_follows"
    assert reason(rubric | {"follows": float("nan")}) == "score_follows"
    assert reason(rubric | {"preserves": 0.0}) == "score_rubric"
    assert reason({"follows": 4.0}) == "score_missing"


def test_odd_geometries_are_measured() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((16, 16), (40, 700), (33, 17), (900, 64)):
        source = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        target = jpeg(source, 60)
        verdict = CHECKS.judge(source, target, "sharpen it a little", "other", exhaustive=True)
        assert all(np.isfinite(value) for value in verdict.measures.values())
        CHECKS.judge(source, 255 - source, "recolour all", "recolour", np.ones((height, width), bool), exhaustive=True)
