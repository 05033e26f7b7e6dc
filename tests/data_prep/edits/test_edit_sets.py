"""Rules over a set of edits: duplicates, caps, balance, decontamination."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from pydantic import ValidationError

from data_prep.edits.config import EditSetConfig
from data_prep.edits.instructions import minhash, normal_form, similarity
from data_prep.edits.sets import EditRow, set_rejects, type_caps, type_weights
from data_prep.edits.vocabulary import EditType

HASH = 0x0123_4567_89AB_CDEF


def row(key: str, instruction: str = "add a ball", bits: int = 0, kind: EditType = "add", source: str = "s") -> EditRow:
    return EditRow(key, source, HASH ^ bits, instruction, kind)


def test_normal_form_and_similarity() -> None:
    assert normal_form("Please, add THE ball!") == normal_form("add a ball") == "add ball"
    assert normal_form("ｆｉｌｌ it") == "fill it"
    assert similarity("Add the ball.", "add a ball") == 1
    assert similarity("paint the ball red", "paint the ball blue") < 0.5
    long = "put a small wooden chair with a red cushion beside the tall window of the old kitchen"
    other = long.replace("red", "blue")
    estimate = float((minhash(long) == minhash(other)).mean())
    assert estimate == pytest.approx(similarity(long, other), abs=0.25)
    assert similarity("", "") == 1


def test_duplicates_need_a_like_source_and_a_like_instruction() -> None:
    config = EditSetConfig(duplicates=True, max_distance=4)
    rows = [
        row("a"),
        row("b", "Please add the ball", bits=0b1111),
        row("c", bits=0b11111),
        row("d", "add a tree"),
        row("e", bits=1 << 63, kind="remove"),
    ]
    found = set_rejects(rows, config)
    assert [(reject.key, reject.reason, reject.other) for reject in found] == [("b", "duplicate_edit", "a")]
    assert set_rejects(rows[::-1], config) == found
    assert set_rejects(rows, EditSetConfig()) == []


def test_every_near_hash_is_found() -> None:
    rng = np.random.default_rng(0)
    for distance in (1, 4, 7):
        config = EditSetConfig(duplicates=True, max_distance=distance)
        for trial in range(20):
            bits = sum(1 << int(bit) for bit in rng.choice(64, distance, replace=False))
            assert len(set_rejects([row("a"), row("b", bits=bits)], config)) == 1, (distance, trial)
            far = bits | sum(1 << int(bit) for bit in range(64) if not bits >> bit & 1 and bit % 2)
            assert set_rejects([row("a"), row("b", bits=far)], config) == []


def test_many_equal_edits_leave_one() -> None:
    rows = [row(f"{number:04}") for number in range(2000)]
    found = set_rejects(rows, EditSetConfig(duplicates=True))
    assert len(found) == 1999
    assert {reject.other for reject in found} == {"0000"}


def test_source_cap_keeps_several_types() -> None:
    rows = [row(f"a{number}", f"add thing {number}") for number in range(5)]
    rows += [row("r0", "remove it", kind="remove"), row("z", source="other")]
    found = set_rejects(rows, EditSetConfig(max_per_source=3))
    assert [reject.key for reject in found] == ["a2", "a3", "a4"]
    assert {reject.reason for reject in found} == {"source_cap"}


def test_weights_give_the_wanted_shares() -> None:
    counts = {"add": 60, "remove": 20, "style": 10, "text": 10}
    weights = type_weights(counts, EditSetConfig(balance={"add": 0.3, "remove": 0.3}, max_weight=10))
    drawn = {name: counts[name] * weight for name, weight in weights.items()}
    shares = {name: value / sum(drawn.values()) for name, value in drawn.items()}
    assert shares == pytest.approx({"add": 0.3, "remove": 0.3, "style": 0.2, "text": 0.2})
    assert type_weights(counts, EditSetConfig(balance={"text": 0.9}, max_weight=2))["text"] == 2
    assert set(type_weights(counts, EditSetConfig()).values()) == {1.0}


def test_caps_give_the_wanted_shares() -> None:
    counts = {"add": 60, "remove": 20, "style": 20}
    shares = {"add": 0.5, "remove": 0.25}
    assert type_caps(counts, shares) == {"add": 40, "remove": 20, "style": 20}
    rows = [row(f"{kind}{number:02}", kind=kind) for kind, count in counts.items() for number in range(count)]
    found = set_rejects(rows, EditSetConfig(balance=shares, balance_by="caps"))
    assert Counter(reject.reason for reject in found) == {"type_cap": 20}
    assert type_caps({"add": 5}, {"add": 0.5, "text": 0.5}) == {"add": 5}
    with pytest.raises(ValidationError, match="at most 1"):
        EditSetConfig(balance={"add": 0.9, "text": 0.2})


def test_contaminated_edits_go_first_with_their_evidence() -> None:
    def decontaminate(rows: Sequence[EditRow]) -> Mapping[str, str]:
        return {row.key: "imgedit/12" for row in rows if row.key == "a"}

    found = set_rejects([row("a"), row("b")], EditSetConfig(duplicates=True), decontaminate)
    assert [(reject.key, reject.reason, reject.other) for reject in found] == [("a", "contaminated", "imgedit/12")]
