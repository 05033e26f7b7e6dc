"""What each worker of the stage builds and trains."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distill.config import DMD2Job
from distill.discriminator import Discriminator
from distill.objective import DMD2
from dreamline.engine.data import StageData
from dreamline.engine.stage import Assembly, run_stage
from dreamline.engine.world import World
from dreamline.model.folder import publish_pipeline
from dreamline.model.unet import load_unet
from dreamline.model.vae import load_vae
from dreamline.rewards.pull import RewardPull
from dreamline.rewards.scene_reward import SceneReward


def assemble(job: DMD2Job, world: World) -> Assembly:
    """Student, fake score, frozen teacher, data and objective."""
    frozen, head = job.input("frozen"), job.stage.discriminator
    student = load_unet(job.input("init_from"))
    fake = load_unet(job.input("teacher"))
    teacher = load_unet(job.input("teacher")).to(world.device).requires_grad_(False).eval()
    discriminator = Discriminator(int(teacher.config.block_out_channels[-1]), head.width) if head.weight else None

    def publish(run_dir: Path) -> Mapping[str, float]:
        publish_pipeline(student, frozen, run_dir / "checkpoint", mobile=True)
        return {}

    pull = None
    if job.stage.reward:
        reward = SceneReward.load(job.input("reward")).to(world.device).requires_grad_(False).eval()
        pull = RewardPull(load_vae(frozen).to(world.device), reward)
    return Assembly(
        DMD2(student, fake, teacher, job.stage, discriminator, pull),
        StageData(job, job.stage, world),
        publish,
        outputs={"checkpoint": "checkpoint"},
        averaged=["student"],
        register="checkpoint",
    )


def train(job: DMD2Job) -> None:
    """One worker's part."""
    run_stage(job, job.stage, assemble)
