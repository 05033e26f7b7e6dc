"""`EditVerdict`: what the filter bank says of one triplet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # RGB, [H, W, 3]
Mask = npt.NDArray[np.bool_]  # [H, W]
Array = npt.NDArray[np.float32]
Problem = tuple[str, str]  # a reason, and the same for a person with the figure and its limit


@dataclass(frozen=True)
class EditVerdict:
    """Whether a triplet is kept (`reason` None), and all that was measured until it was decided."""

    reason: str | None  # of the first check that failed, in order of cost
    detail: str  # the same for a person, with the figure and its limit; empty when kept
    measures: Mapping[str, float]  # by name; scores that came along are among them
    mask: Mask | None  # foreground of the pair at full size; None when rejected, or not asked for
    reasons: tuple[str, ...] = ()  # of all checks, when they were asked to go on
