"""One DeepSpeed engine per trainable module (ZeRO-1)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamline.engine.config import OptimConfig, TrainedStage
from dreamline.engine.trainable import adamw

TAG = "state"
LARGEST_BUCKET, ALIGNMENT = 50_000_000, 1024


def init_process_group() -> None:
    """Join the group that the launcher's environment describes (RANK and the like), else make one of this process."""
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore

    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed asks the environment
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    deepspeed = _deepspeed()
    deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)


def deepspeed_config(stage: TrainedStage, optim: OptimConfig, world_size: int, num_weights: int) -> dict[str, Any]:
    """The DeepSpeed configuration of one module; derived, so that no number stands in two places."""
    # The default bucket of 5e8 numbers is allocated anew for each step, whatever the size of the module.
    bucket = -(-min(num_weights, LARGEST_BUCKET) // ALIGNMENT) * ALIGNMENT
    return {
        "train_micro_batch_size_per_gpu": stage.micro_batch_size,
        "gradient_accumulation_steps": stage.accumulation(world_size),
        "gradient_clipping": optim.clip_norm,
        "zero_optimization": {"stage": 1, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


class DeepSpeedTrainable:
    """A module inside its DeepSpeed engine."""

    def __init__(self, module: nn.Module, stage: TrainedStage, optim: OptimConfig, world_size: int) -> None:
        deepspeed = _deepspeed()
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        num_weights = sum(parameter.numel() for parameter in parameters)
        config = deepspeed_config(stage, optim, world_size, num_weights)
        self.engine, *_ = deepspeed.initialize(
            model=module, optimizer=adamw(parameters, optim), model_parameters=parameters, config=config
        )
        self.module = module
        self.forward: nn.Module = self.engine

    def backward(self, loss: Tensor) -> None:
        self.engine.backward(loss)

    def step(self, last: bool) -> None:
        # DeepSpeed counts micro-batches itself; a disagreement would move weights at the wrong place.
        if self.engine.is_gradient_accumulation_boundary() != last:
            raise RuntimeError("the accumulation of the loop and of DeepSpeed are out of step")
        self.engine.step()

    def set_lr(self, lr: float) -> None:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder), tag=TAG)

    def load(self, folder: Path) -> None:
        path, _ = self.engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=True)
        if path is None:
            raise FileNotFoundError(
                f"{folder}: no DeepSpeed state '{TAG}' here; delete this folder to start the stage anew"
            )


def _deepspeed() -> Any:
    """Import DeepSpeed without its compiled CPU all-reduce, which needs a compiler and is never used here."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
