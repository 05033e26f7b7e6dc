"""The loop, its backends and resume, on a toy objective with two modules and two time scales."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dreamline.config import Job
from dreamline.diffusion.randomness import normals
from dreamline.engine.config import OptimConfig, TrainedStage
from dreamline.engine.loop import Stop
from dreamline.engine.objective import Loss
from dreamline.engine.stage import Assembly, run_stage
from dreamline.result import read_result


class ToyStage(TrainedStage):
    name: str = "toy"
    steps: int = 6
    micro_batch_size: int = 4
    global_batch_size: int = 4
    optim: OptimConfig = OptimConfig(lr=0.05)


class ToyJob(Job):
    stage: ToyStage = ToyStage()


class ToyData:
    fingerprint = "toy"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def batch(self, positions: range) -> torch.Tensor:
        self.asked += positions
        return normals((3,), 0, list(positions), "toy")


class Alternating:
    """`fast` steps always, `slow` at even steps and before it; `slow` also sees what `fast` has become."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = {"slow": nn.Linear(3, 2), "fast": nn.Linear(2, 1)}
        self.seen: list[tuple[int, str]] = []

    def losses(self, batch, step):
        if step % 2 == 0:
            self.seen.append((step, "slow"))
            loss = self.modules["slow"](batch).square().mean()
            yield Loss("slow", loss, {"loss": loss.detach()})
        self.seen.append((step, "fast"))
        hidden = self.modules["slow"](batch).detach()
        loss = (self.modules["fast"](hidden) - 1).square().mean()
        yield Loss("fast", loss, {"loss_fast": loss.detach()})

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def train(
    run_dir: Path, backend: str = "local", hooks=(), data=None, checkpoint_every: int = 2, read_ahead: int = 2, **stage
) -> dict:
    job = ToyJob(
        preset="test",
        run_dir=str(run_dir),
        stage=ToyStage(**stage),
        runtime={
            "backend": backend,
            "log_every": 1,
            "checkpoint_every": checkpoint_every,
            "read_ahead": read_ahead,
        },
    )
    objective = Alternating()
    bare = dict(objective.modules)

    def publish(folder: Path) -> dict[str, float]:
        save_file(
            {f"{name}.{key}": value for name in bare for key, value in bare[name].state_dict().items()}, folder / "w"
        )
        return {"published": 1.0}

    run_stage(
        job,
        job.stage,
        lambda job, world: Assembly(
            objective, data or ToyData(), publish, outputs={"weights": "w"}, averaged=["slow"], hooks=list(hooks)
        ),
    )
    return load_file(run_dir / "w")


class Killed(Exception):
    pass


def kill_at(step: int):
    def hook(state, metrics):
        if state.step == step:
            raise Killed

    return hook


@pytest.mark.parametrize("backend", ["local", "deepspeed"])
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("killed_at", [2, 3, 6])
def test_resume_is_bit_identical(tmp_path, backend, accumulation, killed_at):
    sizes = {"micro_batch_size": 4 // accumulation}
    whole = train(tmp_path / "whole", backend, **sizes)
    with pytest.raises(Killed):
        train(tmp_path / "cut", backend, hooks=[kill_at(killed_at)], **sizes)
    assert read_result(tmp_path / "cut") is None
    resumed = train(tmp_path / "cut", backend, **sizes)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_backends_agree(tmp_path):
    local, deepspeed = train(tmp_path / "a", "local"), train(tmp_path / "b", "deepspeed")
    for name in local:
        torch.testing.assert_close(local[name], deepspeed[name], rtol=1e-5, atol=1e-6)


def test_accumulation_is_the_same_batch(tmp_path):
    whole, parts = train(tmp_path / "a"), train(tmp_path / "b", micro_batch_size=1)
    for name in ("slow.weight", "slow.bias"):  # `fast` sees the moved `slow` in the last micro-batch only
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-5, atol=1e-6)


def test_positions_follow_samples_seen(tmp_path):
    data = ToyData()
    train(tmp_path, data=data, micro_batch_size=2)
    assert data.asked == list(range(24))


def test_reading_ahead_changes_nothing_but_the_wait_for_data(tmp_path):
    class Slow(ToyData):
        def batch(self, positions):
            time.sleep(0.03)
            return super().batch(positions)

    def work(state, metrics):
        time.sleep(0.06)

    waits, weights = {}, {}
    for ahead in (0, 3):
        data = Slow()
        weights[ahead] = train(tmp_path / str(ahead), hooks=[work], data=data, read_ahead=ahead)
        lines = (tmp_path / str(ahead) / "metrics.jsonl").read_text().splitlines()
        waits[ahead] = [json.loads(line)["data_wait"] for line in lines][1:]
        assert data.asked == list(range(24))
    assert all(torch.equal(weights[0][name], weights[3][name]) for name in weights[0])
    assert min(waits[0]) > 0.1
    assert max(waits[3]) < 0.1


def test_published_weights_are_the_average(tmp_path):
    averaged = train(tmp_path / "a", ema_decay=0.9)
    last = train(tmp_path / "b", ema_decay=0.0)
    assert not torch.equal(averaged["slow.weight"], last["slow.weight"])
    assert torch.equal(averaged["fast.weight"], last["fast.weight"])  # not averaged


def test_stop_publishes_and_says_why(tmp_path):
    train(tmp_path, hooks=[lambda state, metrics: Stop("enough") if state.step == 3 else None])
    result = read_result(tmp_path)
    assert result is not None
    assert result.stop_reason == "enough"
    assert result.metrics["train/steps"] == 3
    assert result.metrics["published"] == 1
    assert not (tmp_path / "state").exists()


def test_a_loss_that_is_no_number_fails(tmp_path):
    class Broken(ToyData):
        def batch(self, positions):
            return super().batch(positions) * (float("nan") if positions.start >= 8 else 1.0)

    with pytest.raises(FloatingPointError, match=r"loss.* not finite at step 3"):
        train(tmp_path, data=Broken())
    assert read_result(tmp_path) is None


def test_state_of_other_data_is_refused(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, hooks=[kill_at(3)])
    other = ToyData()
    other.fingerprint = "other"
    with pytest.raises(ValueError, match=r"data was toy, is other.*delete the run's folder"):
        train(tmp_path, data=other)


def test_uneven_batch_is_refused():
    with pytest.raises(ValueError, match=r"runtime\.workers 3"):
        ToyStage(global_batch_size=8, micro_batch_size=4).accumulation(3)


def test_learning_rate():
    optim = OptimConfig(lr=1.0, warmup_steps=2, decay_from=0.5, final=0.1)
    rates = [optim.lr_at(step, 10) for step in range(11)]
    assert rates[0] == 0.5
    assert rates[1:6] == [1.0] * 5
    assert rates[10] == pytest.approx(0.1)
    assert rates[6] > rates[7] > rates[9]
