"""Dense factor rows by id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FactorBlock:
    """Factor rows of one block.

    Attributes
    ----------
    ids : ndarray of int32, shape (n,)
        Ids in ascending order.
    rows : ndarray of float32, shape (n, rank)
        Factor rows; ``rows[i]`` belongs to ``ids[i]``.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.ids) != len(self.rows):
            raise ValueError(f"{len(self.ids)} ids do not fit rows of shape {self.rows.shape}")

    @classmethod
    def merged(cls, blocks: Iterable[FactorBlock], rank: int) -> FactorBlock:
        """Merge blocks that share no ids."""
        blocks = list(blocks)
        ids = np.concatenate([np.empty(0, np.int32), *(block.ids for block in blocks)])
        rows = np.concatenate([np.empty((0, rank), np.float32), *(block.rows for block in blocks)])
        order = np.argsort(ids)
        return cls(ids[order], rows[order])

    @classmethod
    def latest(
        cls, blocks: Sequence[FactorBlock], ids: NDArray[Any], width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the row of each id from the last block that has it, and a mask of known ids.

        Rows of unknown ids are zero.
        """
        rows = np.zeros((len(ids), width), dtype=np.float32)
        known = np.zeros(len(ids), dtype=bool)
        for block in reversed(blocks):
            positions, selected = block.find(ids)
            selected &= ~known
            rows[selected] = block.rows[positions[selected]]
            known |= selected
        return rows, known

    def only(self, ids: NDArray[Any]) -> FactorBlock:
        """Return the rows of the given ids; ids without a row are ignored."""
        selected = np.isin(self.ids, ids)
        return FactorBlock(self.ids[selected], self.rows[selected])

    def without(self, ids: NDArray[Any]) -> FactorBlock:
        """Return the rows of all ids except the given ones."""
        selected = np.isin(self.ids, ids, invert=True)
        return FactorBlock(self.ids[selected], self.rows[selected])

    def unit(self) -> FactorBlock:
        """Return the rows scaled to length 1; zero rows stay zero."""
        lengths = np.linalg.norm(self.rows.astype(np.float64), axis=1, keepdims=True)
        lengths[lengths == 0] = 1
        return FactorBlock(self.ids, (self.rows / lengths).astype(np.float32))

    def find(self, ids: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return the positions of `ids` in this block, and a mask of known ids."""
        positions = np.searchsorted(self.ids, ids)
        if not len(self.ids):
            return positions, np.zeros(len(ids), dtype=bool)
        positions = np.minimum(positions, len(self.ids) - 1)
        return positions, self.ids[positions] == ids
