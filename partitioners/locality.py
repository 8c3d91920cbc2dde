"""Placement that keeps together what is rated together."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from partitioners.bisection import recursive_bisection
from partitioners.checks import as_fit_ids, as_ids, as_num_blocks
from partitioners.levelling import scramble
from partitioners.table import TablePartitioner


class LocalityPartitioner(TablePartitioner):
    """Place ids so that few blocks need the row of an id of the other side.

    Usually made by `fit`. Ids are looked up in a table by binary search; an id outside it is
    hashed.

    Parameters
    ----------
    ids : array-like of int64, shape (n,)
        The ids in the table, in any order, each once.
    blocks : array-like of int, shape (n,)
        The block of each.
    num_blocks : int

    Raises
    ------
    TypeError
        If an id or a block is not an integer.
    ValueError
        If an id occurs twice, a block is outside the blocks, or lengths differ.

    Examples
    --------
    >>> songs, listeners = [1, 2, 3, 4, 2, 1], [7, 8, 9, 9, 7, 8]
    >>> fitted = LocalityPartitioner.fit(songs, listeners, num_blocks=2)
    >>> first, second, third, fourth = fitted.block_of([1, 2, 3, 4])
    >>> bool(first == second), bool(third == fourth)
    (True, True)
    """

    @classmethod
    def fit(
        cls,
        ids: npt.ArrayLike,
        others: npt.ArrayLike,
        num_blocks: SupportsIndex,
        *,
        tolerance: float = 0.1,
        seed: int = 0,
    ) -> LocalityPartitioner:
        """Fit a placement to ratings, by hypergraph partitioning.

        What it saves is for the half-steps in which the other side sends: their rows go to the
        blocks in which the ids are placed that they share a rating with. Blocks are level in
        ratings, within `tolerance`, unless single ids outweigh that.

        Parameters
        ----------
        ids, others : array-like of int64, shape (ratings,)
            The id to place, and the id of the other side, of every rating.
        num_blocks : int
        tolerance : float
            How far the fullest block may exceed the mean number of ratings, as a fraction of it.
        seed : int
            Of where the search begins.

        Returns
        -------
        LocalityPartitioner
            The same one for the same ratings in the same order.

        Raises
        ------
        TypeError
            If an id or `num_blocks` is not an integer.
        ValueError
            If there are no ratings, lengths differ, or a number is out of its range.

        Notes
        -----
        Takes time in proportion to ratings times log2(num_blocks), and some 100 bytes a rating.
        The method and its sources are described in ``partitioners.bisection``.
        """
        size = as_num_blocks(num_blocks)
        keys, rated = as_fit_ids(ids), as_ids(others, name="others")
        if keys.shape != rated.shape:
            raise ValueError(
                f"others must hold one id per rating, got {keys.size} ids and {rated.size} "
                "others: pass arrays of equal length"
            )
        if not 0 < tolerance < np.inf:
            raise ValueError(f"tolerance must be above 0, got {tolerance}: 0.1 is usual")
        order = np.argsort(keys, kind="stable")
        distinct, vertices = np.unique(keys[order], return_inverse=True)
        nets = np.unique(rated, return_inverse=True)[1][order]
        loads = np.bincount(vertices).astype(np.float64)
        # Of more blocks than ids, some stay empty.
        used = min(size, len(distinct))
        blocks = recursive_bisection(vertices, nets, loads, used, tolerance=tolerance, seed=seed)
        return cls(distinct, blocks, size)

    def _elsewhere(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        high = scramble(ids).view(np.uint64) >> np.uint64(32)
        placed: npt.NDArray[np.int32] = (high * np.uint64(self.num_blocks) >> np.uint64(32)).astype(
            np.int32
        )
        return placed
