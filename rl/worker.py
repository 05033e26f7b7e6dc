"""What each worker of the stage builds and trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from dreamline.engine.data import StageData
from dreamline.engine.loop import nothing
from dreamline.engine.stage import Assembly, run_stage
from dreamline.engine.world import World
from dreamline.model.folder import publish_pipeline
from dreamline.model.generator import Generator
from dreamline.model.unet import load_unet
from dreamline.model.vae import load_vae
from dreamline.rewards.pull import RewardPull
from dreamline.rewards.scene_reward import SceneReward
from rl.config import ReFLJob
from rl.objective import ReFL
from rl.probe import Probe


def assemble(job: ReFLJob, world: World) -> Assembly:
    """Network, frozen VAE and reward, data and objective."""
    frozen, probe = job.input("frozen"), job.stage.probe
    unet = load_unet(job.input("init_from"))
    vae = load_vae(frozen).to(world.device)
    reward = SceneReward.load(job.input("reward")).to(world.device).requires_grad_(False).eval()

    def publish(run_dir: Path) -> Mapping[str, float]:
        blend(unet, load_unet(job.input("init_from")), job.stage.start_share)
        publish_pipeline(unet, frozen, run_dir / "checkpoint", mobile=False)
        return {}

    return Assembly(
        ReFL(unet, RewardPull(vae, reward), job.stage),
        StageData(job, job.stage, world),
        publish,
        outputs={"checkpoint": "checkpoint"},
        averaged=["student"],
        register="checkpoint",
        measure=Probe(Generator(unet, frozen, world.device), reward, probe, world) if probe else nothing,
    )


@torch.no_grad()
def blend(network: nn.Module, start: nn.Module, share: float) -> None:
    """Move the weights of `network` towards `start`: (1 - share) network + share start.

    What fine-tuning gains lies mostly on the way between the two, what it breaks mostly at its end. Source: Wortsman et
    al. 2022 (WiSE-FT), equation 1.
    """
    for mine, first in zip(network.parameters(), start.parameters(), strict=True):
        mine.lerp_(first.to(mine), share)


def train(job: ReFLJob) -> None:
    """One worker's part."""
    run_stage(job, job.stage, assemble)
