"""What a data set holds already, in a form that tens of millions of fit into memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Known:
    """What the data set holds already: first halves of sorted hashes, so that tens of millions fit in memory."""

    keys: NDArray[np.bytes_]  # S16
    rows: NDArray[np.bytes_]
    negatives: NDArray[np.bytes_]

    def has_key(self, key: str) -> bool:
        """Whether a sample of this key is there."""
        return _contains(self.keys, key)

    def has_negative(self, key: str) -> bool:
        """Whether an edit of this key is among the negatives."""
        return _contains(self.negatives, key)

    def has_row(self, identity: str) -> bool:
        """Whether a row of this `row_id` was fetched and kept."""
        return _contains(self.rows, identity)


def _contains(hashes: NDArray[np.bytes_], wanted: str) -> bool:
    value = np.bytes_(bytes.fromhex(wanted)[:16])
    place = int(np.searchsorted(hashes, value))
    return place < len(hashes) and hashes[place] == value
