"""Placement by contiguous ranges of ids."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from partitioners.base import Partitioner
from partitioners.checks import as_fit_ids, as_ids, as_num_blocks


class RangePartitioner(Partitioner):
    """Placement by contiguous ranges of ids.

    This helps if nearby ids have similar ratings, for example if ids were assigned by region or by
    date: ratings then fall into few pairs of blocks, and few factor rows move.

    Parameters
    ----------
    bounds : array-like of int64, shape (num_blocks - 1,)
        First id of each block except the first, in ascending order: ``bounds[b - 1]`` starts block
        b. Block 0 has no lower limit and the last block no upper limit, so every int64 has a block.
        Two equal bounds leave the block between them empty. Empty `bounds` make a single block.

    Raises
    ------
    TypeError
        If a bound is not an integer.
    ValueError
        If `bounds` is not one-dimensional and ascending, or a bound is outside int64.

    Examples
    --------
    >>> RangePartitioner([0, 10]).block_of([-5, 0, 9, 10])
    array([0, 1, 1, 2], dtype=int32)
    >>> RangePartitioner.fit([1, 2, 3, 100, 200, 300], num_blocks=2)
    RangePartitioner(num_blocks=2, bounds=[100])
    """

    def __init__(self, bounds: npt.ArrayLike) -> None:
        checked = as_ids(bounds, name="bounds").copy()
        falls = checked[1:] < checked[:-1]
        if falls.any():
            at = int(falls.argmax())
            raise ValueError(
                f"bounds must ascend, got {checked[at + 1]} after {checked[at]}: "
                "pass np.sort(bounds)"
            )
        checked.flags.writeable = False
        super().__init__(checked.size + 1)
        self._bounds: npt.NDArray[np.int64] = checked

    @classmethod
    def fit(cls, ids: npt.ArrayLike, num_blocks: SupportsIndex) -> RangePartitioner:
        """Cut the distinct ids into ranges whose sizes differ by at most one id.

        Parameters
        ----------
        ids : array-like of int64, shape (n,)
            Ids in any order, at least one. Repeated ids count once.
        num_blocks : int
            Number of blocks. With fewer distinct ids than blocks, each id has its own block, and
            the other blocks stay empty.

        Returns
        -------
        RangePartitioner
            Partitioner with `num_blocks` blocks. Ids not in `ids` are placed by range as well.

        Raises
        ------
        TypeError
            If an id or `num_blocks` is not an integer.
        ValueError
            If `ids` is empty, not one-dimensional or outside int64, or `num_blocks` is out of
            range.
        """
        blocks = as_num_blocks(num_blocks)
        ascending = np.sort(as_fit_ids(ids))
        # np.unique hashes, which is many times slower than comparing sorted neighbours.
        distinct = ascending[np.append(True, ascending[1:] != ascending[:-1])]
        # Rounding down keeps every start within `distinct`, even with more blocks than ids.
        starts = np.arange(1, blocks, dtype=np.int64) * distinct.size // blocks
        return cls(distinct[starts])

    @property
    def bounds(self) -> npt.NDArray[np.int64]:
        """First id of each block except the first: read-only, shape (num_blocks - 1,)."""
        return self._bounds

    def _place(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        return np.searchsorted(self._bounds, ids, side="right").astype(np.int32)

    def __repr__(self) -> str:
        bounds = [str(bound) for bound in self._bounds[:3]]
        if self._bounds.size > 4:
            bounds.append("...")
        bounds += [str(bound) for bound in self._bounds[3:][-1:]]
        return f"{type(self).__name__}(num_blocks={self.num_blocks}, bounds=[{', '.join(bounds)}])"
