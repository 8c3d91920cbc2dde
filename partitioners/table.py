"""Placement by a table of ids, with a rule for all other ids."""

from __future__ import annotations

from abc import abstractmethod
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from partitioners.base import Partitioner
from partitioners.checks import as_ids, require_unique


class TablePartitioner(Partitioner):
    """Base class of partitioners with a table; subclasses place other ids in `_place_unlisted`.

    The table has distinct `ids` in any order, or none, and the block of each.
    """

    def __init__(
        self, ids: npt.ArrayLike, blocks: npt.ArrayLike, num_blocks: SupportsIndex
    ) -> None:
        super().__init__(num_blocks)
        keys, values = as_ids(ids), as_ids(blocks, name="blocks")
        if keys.shape != values.shape:
            raise ValueError(
                f"blocks must hold one block per id, got {keys.size} ids and {values.size} "
                "blocks: pass arrays of equal length"
            )
        outside = (values < 0) | (values >= self.num_blocks)
        if outside.any():
            position = int(outside.argmax())
            raise ValueError(
                f"blocks must be from 0 to {self.num_blocks - 1}, got {values[position]} for id "
                f"{keys[position]}: use a block in this range, or increase num_blocks"
            )
        order = np.argsort(keys)
        self._ids, self._blocks = keys[order], values[order].astype(np.int32)
        require_unique(self._ids)
        self._ids.flags.writeable = self._blocks.flags.writeable = False

    @abstractmethod
    def _place_unlisted(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Return the blocks of any ids, as a new array."""

    def _place(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        placed = self._place_unlisted(ids)
        if self._ids.size:
            row = np.minimum(np.searchsorted(self._ids, ids), self._ids.size - 1)
            listed = self._ids[row] == ids
            placed[listed] = self._blocks[row[listed]]
        return placed

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_blocks={self.num_blocks}, table_size={self._ids.size})"
