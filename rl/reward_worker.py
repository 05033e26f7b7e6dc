"""What each worker of reward-model training builds, trains and measures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from dreamline.engine.stage import Assembly, run_stage
from dreamline.engine.world import World
from dreamline.model.vae import load_vae
from dreamline.rewards.scene_reward import SceneReward
from dreamline.rewards.vocabulary import Vocabulary
from rl.config import RewardJob
from rl.preference_data import PreferenceData, training_prompts
from rl.reward_objective import RewardObjective

EVAL_BATCH = 100
TASKS = {"generation": 0.0, "editing": 1.0}  # share of edits


def assemble(job: RewardJob, world: World) -> Assembly:
    """Network, preferences and objective."""
    stage = job.stage
    vae = load_vae(job.input("frozen")).to(world.device, memory_format=torch.channels_last)  # halves the time on CPU
    reward = SceneReward(stage.network, stage.world, Vocabulary.of(training_prompts(stage.world)))
    objective = RewardObjective(reward, vae, stage)

    def publish(run_dir: Path) -> Mapping[str, float]:
        reward.save(run_dir / "reward")
        return held_out(objective, reward, world.device)

    return Assembly(
        objective,
        PreferenceData(stage.world, stage.seed, stage.preferences.edit_share, world.device),
        publish,
        outputs={"reward": "reward"},
        averaged=["reward"],
    )


@torch.no_grad()
def held_out(objective: RewardObjective, reward: SceneReward, device: torch.device) -> dict[str, float]:
    """Pair accuracy on evaluation prompts, by task and kind of fault, and the scale of the rewards.

    `reward/pair_accuracy_<task>`, `reward/pair_accuracy_<task>/<fault>`, and `reward/<task>_right`, `_wrong`: mean
    rewards of preferred and other pictures, which tell where a cap on the reward should lie.
    """
    stage = objective.stage
    reward.eval()
    metrics: dict[str, float] = {}
    for task, edit_share in TASKS.items():
        data = PreferenceData(stage.world, stage.seed, edit_share, device, "eval")
        right: list[float] = []
        wrong: list[float] = []
        by_fault: dict[str, list[bool]] = {}
        for start in range(0, stage.num_eval, EVAL_BATCH):
            batch = data.batch(range(start, min(start + EVAL_BATCH, stage.num_eval)))
            images, sources = objective.decoded(objective.encoded(batch, list(range(len(batch.index))))[0])
            rewards = reward(images, reward.words_of(batch.prompts), sources, batch.is_edit).rewards.cpu()
            right += rewards[:, 0].tolist()
            wrong += rewards[:, 1:].flatten().tolist()
            for faults, row in zip(batch.faults, (rewards[:, :1] > rewards[:, 1:]).tolist(), strict=True):
                for fault, won in zip(faults, row, strict=True):
                    by_fault.setdefault(fault, []).append(won)
        name = f"reward/pair_accuracy_{task}"
        metrics[name] = float(np.mean([won for pairs in by_fault.values() for won in pairs]))
        metrics |= {f"{name}/{fault}": float(np.mean(pairs)) for fault, pairs in sorted(by_fault.items())}
        metrics |= {f"reward/{task}_right": float(np.mean(right)), f"reward/{task}_wrong": float(np.mean(wrong))}
    return metrics


def train(job: RewardJob) -> None:
    """One worker's part."""
    run_stage(job, job.stage, assemble)
