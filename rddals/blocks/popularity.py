"""Which ids have the most ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST", "Popularity"]

#: Ids that are remembered.
MOST = 1000


@dataclass(frozen=True, slots=True)
class Popularity:
    """The ids of one side with the most ratings above zero, most first, then by id.

    Attributes
    ----------
    ids : ndarray of int32, shape (at most `MOST`,)
    counts : ndarray of int32, same shape
        How many ratings above zero each has; at least one.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]

    @classmethod
    def none(cls) -> Popularity:
        """Nothing known."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int32))

    @classmethod
    def of(cls, ids: NDArray[np.int32], counts: NDArray[np.int32]) -> Popularity:
        """The most popular of some ids."""
        order = np.lexsort((ids, -counts))[:MOST]
        order = order[counts[order] > 0]
        return cls(ids[order], counts[order])

    @classmethod
    def merged(cls, parts: Sequence[Popularity]) -> Popularity:
        """The most popular of all; no id is in two parts."""
        ids = np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)])
        counts = np.concatenate([np.empty(0, np.int32), *(part.counts for part in parts)])
        return cls.of(ids, counts)
