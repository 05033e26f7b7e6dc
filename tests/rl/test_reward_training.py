"""Reward training through the real stage: losses, resume and result."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dreamline.config import dump, load
from dreamline.result import ROOT, read_result
from dreamline.rewards.scene_reward import SceneReward
from rl.config import RewardJob
from rl.preference_data import PreferenceData
from rl.reward_objective import anchored, bradley_terry
from rl.reward_training import run

FROZEN = {"path": str(ROOT / "assets" / "encoders"), "digest": "frozen"}


def job(run_dir: Path, *overrides: str) -> RewardJob:
    small = ["stage.steps=4", "stage.num_eval=8", "stage.network.width=32", "stage.network.trunk_channels=[16,32]"]
    local = ["runtime.workers=1", "runtime.backend=local", "runtime.log_every=1", "runtime.checkpoint_every=2"]
    settings = {"preset": "test", "run_dir": str(run_dir), "inputs": {"frozen": FROZEN}}
    made = load(RewardJob, ROOT / "conf" / "smoke" / "reward.yaml", [*small, *local, *overrides], **settings)
    dump(made, run_dir / "config.yaml")
    return made


class Killed(Exception):
    pass


def test_stage_leaves_a_reward_and_its_accuracy(tmp_path) -> None:
    result = run(job(tmp_path))
    assert {"reward/pair_accuracy_generation", "reward/pair_accuracy_editing"} <= set(result.metrics)
    assert 0 <= result.metrics["reward/pair_accuracy_editing/no_op"] <= 1
    assert "reward/generation_right" in result.metrics
    reward = SceneReward.load(result.output("reward"))
    batch = PreferenceData(reward.world, 0, 1.0, torch.device("cpu")).batch(range(4))
    assert torch.isfinite(reward.score(batch.images[:, 0], batch.prompts, batch.sources)).all()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["loss_reading"] < rows[0]["loss_reading"]


def test_a_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch) -> None:
    whole = run(job(tmp_path / "whole"))

    real = PreferenceData.batch

    def dies(self, positions):
        if positions.start >= 3 * 16:
            raise Killed
        return real(self, positions)

    with monkeypatch.context() as patched:
        patched.setattr(PreferenceData, "batch", dies)
        with pytest.raises(Killed):
            run(job(tmp_path / "killed"))
    assert read_result(tmp_path / "killed") is None
    resumed = run(job(tmp_path / "killed"))
    first, second = (load_file(item.output("reward") / "model.safetensors") for item in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ranking_and_anchor_are_what_they_say() -> None:
    never = torch.tensor([False])
    assert bradley_terry(torch.zeros(1, 3), never).item() == pytest.approx(0.6931, abs=1e-4)
    row = torch.tensor([[5.0, 1.0, 1.0]])
    assert bradley_terry(row + 100, never).item() == pytest.approx(bradley_terry(row, never).item())
    assert bradley_terry(row, ~never) > bradley_terry(row, never)  # the last must also beat the second
    assert anchored(torch.tensor([[4.0, -4.0, -4.0]]), never) < 0.02
    assert anchored(torch.tensor([[8.0, 4.0, 4.0]]), never) > 1.9
    assert anchored(torch.tensor([[4.0, -4.0, 9.0]]), ~never) < 0.02  # unclear: does not count
