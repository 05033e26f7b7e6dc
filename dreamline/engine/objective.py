"""The one protocol between a method and the training loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and the name of the module that takes the step.

    Metrics are detached scalars for the curves; each is averaged over micro-batches and workers.
    """

    module: str
    value: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A training method. `fit()` replaces the modules by their engines; objectives call what stands in `modules`.

    `losses` is a generator: each loss is back-propagated and stepped before the next one is computed. Every worker
    yields the same names in the same order.
    """

    modules: MutableMapping[str, nn.Module]

    def losses(self, batch: Any, step: int) -> Iterator[Loss]:
        """Losses of one micro-batch of optimiser step `step`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Own state beside the modules: tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        ...


class Data(Protocol):
    """Random access to the endless sequence of training samples."""

    @property
    def identity(self) -> Mapping[str, str | int]:
        """What must be equal for a run to go on with this data, by name; `data` names the whole sequence."""
        ...

    def batch(self, positions: range) -> Any:
        """The samples at these global positions, which are of one global batch."""
        ...
