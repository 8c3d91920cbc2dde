"""Placement that puts ids that are rated together in the same block."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from partitioners.bisection import recursive_bisection
from partitioners.checks import as_fit_ids, as_ids, as_num_blocks
from partitioners.levelling import scramble
from partitioners.table import TablePartitioner


class LocalityPartitioner(TablePartitioner):
    """Placement with which few blocks need each row of the other side.

    Usually built by `fit`. Ids are located in a table by binary search. Ids outside the table are
    hashed.

    Parameters
    ----------
    ids : array-like of int64, shape (n,)
        Distinct ids of the table, in any order.
    blocks : array-like of int, shape (n,)
        Block of each id in the table.
    num_blocks : int
        Number of blocks.

    Raises
    ------
    TypeError
        If an id or a block is not an integer.
    ValueError
        If an id occurs twice, a block is outside 0 to num_blocks - 1, or lengths differ.

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

        The placement reduces the rows that move when the other side sends: each of its rows goes
        to every block that holds an id with which it shares a rating. Blocks are balanced in
        ratings, within `tolerance`, unless a single id exceeds the limit.

        Parameters
        ----------
        ids, others : array-like of int64, shape (ratings,)
            Id to place, and id of the other side, of every rating.
        num_blocks : int
            Number of blocks.
        tolerance : float
            Largest relative excess of a block's ratings over the mean.
        seed : int
            Seed of the random numbers.

        Returns
        -------
        LocalityPartitioner
            Partitioner that is the same for the same ratings in the same order.

        Raises
        ------
        TypeError
            If an id or `num_blocks` is not an integer.
        ValueError
            If there are no ratings, lengths differ, or a number is out of its range.

        Notes
        -----
        The fit takes time proportional to ratings times log2(num_blocks), and about 100 bytes per
        rating. ``partitioners.bisection`` describes the method and its references.
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
        weights = np.bincount(vertices).astype(np.float64)
        # With more blocks than ids, the last blocks stay empty.
        used = min(size, len(distinct))
        blocks = recursive_bisection(vertices, nets, weights, used, imbalance=tolerance, seed=seed)
        return cls(distinct, blocks, size)

    def _place_unlisted(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        high = scramble(ids).view(np.uint64) >> np.uint64(32)
        placed: npt.NDArray[np.int32] = (high * np.uint64(self.num_blocks) >> np.uint64(32)).astype(
            np.int32
        )
        return placed
