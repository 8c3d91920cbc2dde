"""Placement that balances the number of ratings per block."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from partitioners.checks import as_counts, as_fit_ids, as_ids, as_num_blocks, require_unique
from partitioners.levelling import level_cuts, longest_first, scramble
from partitioners.ranges import RangePartitioner
from partitioners.table import TablePartitioner

TOLERANCE = 0.05
"""Largest relative excess of a block's load over the mean load."""


class DegreeBalancedPartitioner(TablePartitioner):
    """Placement with balanced ratings per block: a table of heavy ids and a hash of all others.

    Usually built by `fit`. An id in the table is located by binary search. Any other id is
    scrambled by a bijection of int64 and falls into one of `num_blocks` ranges of the scrambled
    values. The cuts between these ranges are fitted to the loads, so the hash itself is balanced,
    and only the heaviest ids need an entry in the table.

    Parameters
    ----------
    ids : array-like of int64, shape (h,)
        Distinct ids of the table, in any order. May be empty.
    blocks : array-like of int, shape (h,)
        Block of each id in the table.
    cuts : array-like of int64, shape (num_blocks - 1,)
        First scrambled value of each block except the first, in ascending order.

    Raises
    ------
    TypeError
        If an id, a block or a cut is not an integer.
    ValueError
        If an id occurs twice, a block is outside 0 to ``len(cuts)``, lengths differ, or the cuts
        do not ascend.

    References
    ----------
    R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM Journal on Applied
    Mathematics 17(2), 1969: longest processing time first, within 4/3 of the optimal placement.

    G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014: the scrambling bijection.

    Examples
    --------
    >>> fitted = DegreeBalancedPartitioner.fit([1, 2, 3, 4], [30, 20, 10, 40], num_blocks=2)
    >>> np.bincount(fitted.block_of([1, 2, 3, 4]), weights=[30, 20, 10, 40])
    array([50., 50.])
    """

    def __init__(self, ids: npt.ArrayLike, blocks: npt.ArrayLike, cuts: npt.ArrayLike) -> None:
        self._tail = RangePartitioner(as_ids(cuts, name="cuts"))
        super().__init__(ids, blocks, self._tail.num_blocks)

    @classmethod
    def fit(
        cls, ids: npt.ArrayLike, counts: npt.ArrayLike, num_blocks: SupportsIndex
    ) -> DegreeBalancedPartitioner:
        """Fit a placement that balances the sum of `counts` over the blocks.

        Heavy ids, with more than 5 % of the mean load, number fewer than 20 per block. They are
        placed first, in descending order of weight, each in the lightest block. Light ids then
        fill every block up to a common level, which is at most the mean, and this sets the cuts of
        the hash. A cut misses its target by less than one light id, so light ids raise no block
        more than 5 % above the mean.

        The fullest block therefore holds at most 1.05 times the mean, unless the heavy ids alone
        exceed that. They do not if no id exceeds the mean load and the (num_blocks + 1)-th
        heaviest id weighs at most 0.05 + t mean loads, where t is the share of the light ids in all
        counts. With few and heavy ids this balance can be impossible (three equal ids in two
        blocks) or missed: Graham's bound then holds for the heavy ids, and the light ids fill the
        remaining blocks.

        Parameters
        ----------
        ids : array-like of int64, shape (n,)
            Distinct ids, in any order. At least one.
        counts : array-like of int or float, shape (n,)
            Number of ratings of each id, or another measure of its work. 0 is allowed.
        num_blocks : int
            The number of blocks.

        Returns
        -------
        DegreeBalancedPartitioner
            Partitioner that does not depend on the order of `ids`. Ids not in `ids` are hashed,
            mostly to blocks with few heavy ids.

        Raises
        ------
        TypeError
            If an id or `num_blocks` is not an integer, or a count is not a number.
        ValueError
            If `ids` is empty, holds an id twice or an id outside int64, a count is negative or not
            finite, lengths differ, or `num_blocks` is out of range.
        """
        size = as_num_blocks(num_blocks)
        unsorted = as_fit_ids(ids)
        weights = as_counts(counts, unsorted)
        order = np.argsort(unsorted)
        keys, weights = unsorted[order], weights[order]
        require_unique(keys)

        heavy = weights > TOLERANCE * weights.sum() / size
        blocks, loads = longest_first(weights[heavy], size)
        cuts = level_cuts(scramble(keys[~heavy]), weights[~heavy], loads)
        # A heavy id whose hash already gives its block needs no table entry.
        misplaced = RangePartitioner(cuts).block_of(scramble(keys[heavy])) != blocks
        return cls(keys[heavy][misplaced], blocks[misplaced], cuts)

    def _place_unlisted(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        return self._tail.block_of(scramble(ids))
