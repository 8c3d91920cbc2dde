"""The ids with the most ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Most ids stored per side.
MAX_POPULAR = 1000


@dataclass(frozen=True, slots=True)
class Popularity:
    """Ids of one side with the most ratings above zero, in descending order of count, then by id.

    Attributes
    ----------
    ids : ndarray of int32, shape (at most `MAX_POPULAR`,)
    counts : ndarray of int32, same shape
        Ratings above zero of each id, at least one.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]

    @classmethod
    def of(cls, ids: NDArray[np.int32], counts: NDArray[np.int32]) -> Popularity:
        """Select the most popular of the given ids."""
        order = np.lexsort((ids, -counts))[:MAX_POPULAR]
        order = order[counts[order] > 0]
        return cls(ids[order], counts[order])

    @classmethod
    def merged(cls, parts: Sequence[Popularity]) -> Popularity:
        """Select the most popular ids of all parts, which share no ids."""
        ids = np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)])
        counts = np.concatenate([np.empty(0, np.int32), *(part.counts for part in parts)])
        return cls.of(ids, counts)
