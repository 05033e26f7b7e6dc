"""What the rewards say is shown on scales of their own, or two rewards could not be compared."""

from __future__ import annotations

import flows.contrast
from flows.contrast import contrasts

SCALES = {"reward/generation_wrong": -4.0, "reward/generation_right": 4.0}


def test_a_reward_is_shown_between_what_it_gives_wrong_and_right_pictures(monkeypatch) -> None:
    drawn = {}

    def keep(lines, title):
        drawn[title] = lines
        return "<svg/>" if any(lines.values()) else ""

    monkeypatch.setattr(flows.contrast, "curves", keep)
    rows = [{"step": 20, "judged_generation": 2.0, "exact_generation": 0.7}, {"step": 25, "loss": 1.0}]
    hacked = [{"step": 20, "judged_generation": 1.5, "exact_generation": 0.3}]
    metrics = {"reward": SCALES, "hasty": {"reward/generation_wrong": 0.0, "reward/generation_right": 1.0}}
    (found,) = contrasts({"sft": [{"step": 1, "loss": 1.0}], "refl": rows, "unguarded": hacked}, metrics)
    assert found["title"] == "Generation"
    assert found["names"] == ["refl", "unguarded"]
    reward, truth = (lines for title, lines in drawn.items() if title.endswith("generation"))
    assert reward == {"refl": [(20.0, 0.75)], "unguarded": [(20.0, 1.5)]}
    assert truth == {"refl": [(20.0, 0.7)], "unguarded": [(20.0, 0.3)]}


def test_without_a_known_scale_the_reward_is_shown_as_it_is() -> None:
    rows = [{"step": step, "judged_editing": 2.5, "exact_editing": 0.7} for step in (0, 20)]
    (found,) = contrasts({"refl": rows}, {})
    assert "2.5" in found["charts"][0][1]
