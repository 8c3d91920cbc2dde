"""Rows of a whole side, for selecting those that a block needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import InBlock
from rddals.blocks.ratings import INT32_MIN
from rddals.errors import InconsistentRatingsError
from rddals.exchange.base import Rows
from rddals.rdds.links import REMEDY


@dataclass(frozen=True)
class SideRows:
    """Rows of all blocks of a side, indexed by block and id.

    Attributes
    ----------
    ids : ndarray of int32, shape (n,)
        Ids of the rows, block after block, ascending within each.
    counts : ndarray of int64, shape (blocks,)
        Number of ids of each block.
    rows : ndarray of float32, shape (n, rank)
        Factor rows of the ids.
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int64]
    rows: Rows

    @classmethod
    def of(cls, blocks: Sequence[FactorBlock]) -> SideRows:
        """Concatenate the rows of all blocks, in order."""
        counts = np.array([len(block.ids) for block in blocks])
        ids = np.concatenate([block.ids for block in blocks])
        return cls(ids, counts, np.concatenate([block.rows for block in blocks]))

    def needed_by(self, in_block: InBlock) -> Rows:
        """Return the rows that a block of the other side needs, in canonical order."""
        if np.array_equal(in_block.source_ids, self.ids) and np.array_equal(
            in_block.source_counts, self.counts
        ):
            return self.rows
        requested = _keys(in_block.source_ids, in_block.source_counts)
        positions = np.searchsorted(self._keys, requested)
        unknown = self._keys[positions] != requested
        if unknown.any():
            source, id_ = divmod(int(requested[np.argmax(unknown)]), 1 << 32)
            raise InconsistentRatingsError(
                f"Source block {source} has no factor for id {id_ + INT32_MIN}. {REMEDY}"
            )
        return self.rows.take(positions, axis=0)

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        """Keys of all rows, computed once per worker; the last one is a sentinel."""
        return np.append(_keys(self.ids, self.counts), np.iinfo(np.int64).max)


def _keys(ids: NDArray[np.int32], counts: NDArray[Any]) -> NDArray[np.int64]:
    """Return a number for each block and id, ascending by block, then by id."""
    blocks = np.repeat(np.arange(len(counts)), counts)
    return (blocks << 32) + (ids.astype(np.int64) - INT32_MIN)
