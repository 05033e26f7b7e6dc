"""Every method through the real loop on a small U-Net: resume is bit-identical, and the right modules move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from distill.config import DiscriminatorConfig, DMD2Stage, RegressionConfig
from distill.discriminator import Discriminator
from distill.objective import DMD2
from dreamline.config import ConfigError, Job, build
from dreamline.data.batch import Batch
from dreamline.diffusion.randomness import normals
from dreamline.engine.config import OptimConfig
from dreamline.engine.stage import Assembly, run_stage
from dreamline.model.conditioning import dropped
from dreamline.model.config import UNetConfig
from dreamline.model.unet import build_unet
from dreamline.rewards.config import RewardTerm, RewardTerms
from dreamline.rewards.pull import RewardPull
from rl.config import ReFLStage
from rl.objective import ReFL
from training.config import TrainStage
from training.objective import FlowMatching

CHANNELS, SIDE, TEXT = 4, 4, 16
COMMON = {
    "steps": 4,
    "micro_batch_size": 4,
    "global_batch_size": 4,
    "mixture": {"t2i": 1, "edit": 1},
    "optim": OptimConfig(lr=1e-3),
}


class Samples:
    """Alternating generations and edits of random latents."""

    identity = {"data": "random"}

    def batch(self, positions: range) -> Batch:
        index = list(positions)
        is_edit = torch.tensor([position % 2 == 1 for position in index])
        latents = normals((CHANNELS, SIDE, SIDE), 1, index, "latents")
        return Batch(
            keys=[str(position) for position in index],
            prompts=["a red circle"] * len(index),
            index=torch.tensor(index),
            latents=latents,
            source_latents=latents.flip(1) * is_edit[:, None, None, None],
            is_edit=is_edit,
            text=normals((6, TEXT), 1, index, "text"),
            text_mask=torch.ones(len(index), 6, dtype=torch.long),
            null_text=normals((3, TEXT), 1, [0] * len(index), "null"),
            null_mask=torch.ones(len(index), 3, dtype=torch.long),
            time_ids=torch.full((len(index), 2), 32.0),
        )


class Brightness(nn.Module):
    """A reward with a gradient: bright pictures, and for edits those unlike their source."""

    def score(self, images, prompts, sources=None):
        assert len(prompts) == len(images)
        bright = images.mean(dim=(1, 2, 3))
        return bright if sources is None else bright + (images - sources).abs().mean(dim=(1, 2, 3))


def unet(seed: int) -> nn.Module:
    small = UNetConfig(block_out_channels=(16, 32), transformer_layers_per_block=(1, 1), norm_num_groups=8)
    return build_unet(small, text_dim=TEXT, latent_channels=CHANNELS, sample_size=SIDE, seed=seed)


def vae() -> nn.Module:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    shape = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    return AutoencoderTiny(**shape, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).requires_grad_(False)


def flow_matching():
    stage = TrainStage(name="joint", text_drop=0.3, source_drop=0.3, **COMMON)
    return stage, FlowMatching(unet(0), stage)


def refl():
    term = RewardTerm(weight=1.0, cap=2.0)
    stage = ReFLStage(name="refl", generation=term, editing=term, sampling_steps=3, gradient_from=1, **COMMON)
    return stage, ReFL(unet(0), RewardPull(vae(), Brightness()), stage)


def dmd2(gan: float = 0.0, alone: int = 0, reward: float = 0.0):
    regression = RegressionConfig(steps=alone, weight=0.5 * alone, substeps=2)
    term = RewardTerm(weight=reward, cap=2.0)
    terms = RewardTerms(generation=term, editing=term) if reward else None
    stage = DMD2Stage(
        name="dmd2", discriminator=DiscriminatorConfig(weight=gan), regression=regression, reward=terms, **COMMON
    )
    head, pull = Discriminator(32, 16) if gan else None, RewardPull(vae(), Brightness()) if reward else None
    return stage, DMD2(unet(0), unet(1), unet(2).requires_grad_(False), stage, head, pull)


METHODS = {
    "flow_matching": flow_matching,
    "refl": refl,
    "dmd2": dmd2,
    "dmd2_gan": lambda: dmd2(0.1),
    "dmd2_regression": lambda: dmd2(alone=2),
    "dmd2_reward": lambda: dmd2(alone=2, reward=0.1),
}


class Killed(Exception):
    pass


def train(run_dir: Path, method: str, backend: str = "deepspeed", killed_at: int | None = None):
    stage, objective = METHODS[method]()
    bare = dict(objective.modules)
    before = {f"{name}.{key}": value.clone() for name in bare for key, value in bare[name].state_dict().items()}

    def kill(state, metrics):
        if state.step == killed_at:
            raise Killed

    def publish(folder: Path) -> dict[str, float]:
        state = {f"{name}.{key}": value for name in bare for key, value in bare[name].state_dict().items()}
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "w")
        return {}

    job = Job(
        preset="test",
        run_dir=str(run_dir),
        stage=stage,
        runtime={"backend": backend, "log_every": 1, "checkpoint_every": 1},
    )
    run_stage(
        job,
        stage,
        lambda job, world: Assembly(objective, Samples(), publish, {"w": "w"}, ["student"], hooks=[kill]),
    )
    return before, load_file(run_dir / "w")


@pytest.mark.parametrize("method", METHODS)
def test_resume_is_bit_identical(tmp_path, method):
    before, whole = train(tmp_path / "whole", method)
    with pytest.raises(Killed):
        train(tmp_path / "cut", method, killed_at=3)
    _, resumed = train(tmp_path / "cut", method)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert all(torch.isfinite(value).all() for value in whole.values())
    moved = {name.split(".")[0] for name in whole if not torch.equal(before[name], whole[name])}
    assert moved == {name.split(".")[0] for name in whole}


def test_student_and_fake_score_have_time_scales_of_their_own():
    _, objective = dmd2()
    batch = Samples().batch(range(4))
    assert [loss.module for loss in objective.losses(batch, 0)] == ["fake"]
    assert [loss.module for loss in objective.losses(batch, 1)] == ["student", "fake"]


def test_regression_follows_the_teacher_before_distributions_are_matched():
    stage, objective = dmd2(alone=2)
    assert [[loss.module for loss in objective.losses(Samples().batch(range(4)), step)] for step in range(5)] == [
        ["student"],
        ["student"],
        ["fake"],
        ["student", "fake"],
        ["fake"],
    ]
    # A student that is its teacher, which takes the same steps without guidance, has nothing to learn.
    teacher = objective.teacher
    plain = stage.model_copy(
        update={"guidance_scale": 1.0, "image_guidance_scale": 1.0, "regression": RegressionConfig(steps=2, substeps=1)}
    )
    copied = DMD2(teacher, unet(1), teacher, plain)
    losses = [next(copied.losses(Samples().batch(range(4)), step)).value for step in range(2)]
    assert max(float(loss) for loss in losses) < 1e-10
    finer = DMD2(
        teacher, unet(1), teacher, plain.model_copy(update={"regression": RegressionConfig(steps=2, substeps=4)})
    )
    assert float(next(finer.losses(Samples().batch(range(4)), 0)).value) > 1e-8


def test_only_the_steps_that_are_asked_for_are_matched():
    stage, objective = dmd2()
    assert {objective.student_step(step) for step in range(50)} == set(range(stage.num_steps))
    assert {objective.student_step(step, first=2) for step in range(50)} == {2, 3}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"matched_from": 4}, "matched_from 4 must be below num_steps 4"),
        ({"regression": {"steps": 5}}, "regression.steps 5 must not exceed steps 4"),
        ({"sigma_min": 0.99}, "sigma_min 0.99 must be below sigma_max"),
    ],
)
def test_settings_of_distillation_that_cannot_be(values, named):
    with pytest.raises(ConfigError, match=named):
        build(DMD2Stage, {"name": "dmd2", **COMMON, **values}, "dmd2.yaml")


def test_the_gan_term_leaves_no_gradient_in_the_head_or_the_teacher():
    _, objective = dmd2(0.5)
    loss = next(objective.losses(Samples().batch(range(4)), 1))
    loss.value.backward()
    assert loss.module == "student"
    assert all(weight.grad is None for weight in objective.modules["discriminator"].parameters())
    assert all(weight.grad is None for weight in objective.teacher.parameters())
    assert all(weight.grad is None for weight in objective.modules["fake"].parameters())
    assert any(weight.grad is not None and weight.grad.any() for weight in objective.modules["student"].parameters())


def test_no_reward_gradient_beyond_the_cap():
    stage, objective = refl()
    low = RewardTerm(weight=1.0, cap=-100.0)
    capped = stage.model_copy(update={"generation": low, "editing": low, "flow_matching_weight": 0.0})
    objective.stage = capped
    loss = next(objective.losses(Samples().batch(range(4)), 0))
    assert loss.value.item() == 0
    loss.value.backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in objective.modules["student"].parameters())


def test_dropout_matches_the_guidance_branches():
    batch = Samples().batch(range(4))
    rows = dropped(batch, torch.tensor([0.1, 0.1, 0.5, 0.9]), text_drop=0.3, source_drop=0.3)
    assert not rows.source[:2].any()  # below source_drop: neither text nor source
    assert torch.equal(rows.text[1, :3], batch.null_text[1])
    assert torch.equal(rows.text[2, :3], batch.null_text[2])
    assert rows.mask[2].tolist() == [1, 1, 1, 0, 0, 0]
    assert torch.equal(rows.source[3], batch.source_latents[3])
    assert torch.equal(rows.text[3], batch.text[3])


def test_losses_do_not_depend_on_the_rest_of_the_batch():
    _, objective = flow_matching()
    whole = Samples().batch(range(8))
    parts = [next(objective.losses(Samples().batch(range(start, start + 4)), 0)).value for start in (0, 4)]
    both = next(objective.losses(whole, 0)).value
    torch.testing.assert_close(both, (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-6)


def test_a_students_reward_counts_at_its_last_step_alone():
    """Without it the loss is smaller by the hinge where the picture is what comes out, and the same elsewhere."""
    stage, with_reward = dmd2(alone=4, reward=0.3)
    _, without = dmd2(alone=4)
    batch, seen = Samples().batch(range(4)), set()
    for step in range(4):
        (plain,), (pulled,) = without.losses(batch, step), with_reward.losses(batch, step)
        last = with_reward.student_step(step) == stage.num_steps - 1
        hinge = pulled.metrics["loss_reward"] if last else torch.zeros(())
        torch.testing.assert_close(pulled.value, plain.value + hinge)
        assert bool(hinge > 0) == last
        seen.add(last)
    assert seen == {True, False}
