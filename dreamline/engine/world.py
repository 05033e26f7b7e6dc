"""This process among its fellow workers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class World:
    """Rank, number of workers and device of this process."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def here(cls) -> World:
        """Read it from the process group, if there is one."""
        rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        cuda = torch.cuda.is_available()
        return cls(rank, size, torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this worker writes what is written once."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Average of every value over the workers that have it; called on all of them."""
        if self.size == 1:
            return values
        gathered: list[list[str]] = [[] for _ in range(self.size)]
        dist.all_gather_object(gathered, sorted(values))
        names = sorted({name for known in gathered for name in known})
        sums = torch.tensor([values.get(name, 0.0) for name in names], dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        counts = [sum(name in known for known in gathered) for name in names]
        return {name: total / count for name, total, count in zip(names, sums.tolist(), counts, strict=True)}
