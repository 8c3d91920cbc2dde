"""Placement that levels the number of ratings per block."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from partitioners.checks import as_counts, as_fit_ids, as_ids, as_num_blocks, require_unique
from partitioners.levelling import level_cuts, longest_first, scramble
from partitioners.ranges import RangePartitioner
from partitioners.table import TablePartitioner

TOLERANCE = 0.05
"""How far the fullest block may exceed the mean load, as a fraction of it."""


class DegreeBalancedPartitioner(TablePartitioner):
    """Level the ratings per block: a small table of heavy ids, a fitted hash for all others.

    Usually made by `fit`. The table is looked up by binary search; an id outside it is
    scrambled by a bijection of int64 and falls into one of `num_blocks` ranges of the scrambled
    values. With the cuts between those ranges fitted to the loads, the hash itself is balanced,
    and only the ids too heavy for it need a row in the table.

    Parameters
    ----------
    ids : array-like of int64, shape (h,)
        The ids in the table, in any order, each once. May be empty.
    blocks : array-like of int, shape (h,)
        The block of each.
    cuts : array-like of int64, shape (num_blocks - 1,)
        Ascending: the first scrambled value of each block but the first.

    Raises
    ------
    TypeError
        If an id, a block or a cut is not an integer.
    ValueError
        If an id occurs twice, a block is outside the ``len(cuts) + 1`` blocks, lengths differ,
        or the cuts do not ascend.

    References
    ----------
    R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM Journal on Applied
    Mathematics 17(2), 1969: longest processing time first, within 4/3 of the best placement.

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
        """Fit a placement that levels the sum of `counts` over the blocks.

        Ids heavier than 5 % of the mean load, fewer than 20 per block, are placed heaviest first,
        each on the block lightest so far. The room that leaves in each block, up to a common
        level no higher than the mean, sets the cuts of the hash: a cut misses its mark by less
        than one light id, so no block rises above the mean by more than 5 % on their account.

        The fullest block therefore holds at most 1.05 times the mean, unless the heavy ids
        alone already exceed that. They do not if no id outweighs a block and the
        (num_blocks + 1)-th heaviest id weighs at most 0.05 + t mean loads, t being the share of
        the light ids in all counts; with few and heavy ids it may be impossible (three equal
        ids in two blocks) or missed: Graham's bound then holds for the heavy ids, and the light
        ones go where there is room.

        Parameters
        ----------
        ids : array-like of int64, shape (n,)
            In any order, each once, at least one.
        counts : array-like of int or float, shape (n,)
            The number of ratings of each id, or any other measure of its work; 0 is allowed.
        num_blocks : int
            The number of blocks.

        Returns
        -------
        DegreeBalancedPartitioner
            The same one whatever the order of `ids`. Ids not in `ids` are hashed, and go mostly
            to the blocks with few heavy ids.

        Raises
        ------
        TypeError
            If an id or `num_blocks` is not an integer, or a count not a number.
        ValueError
            If `ids` is empty, holds an id twice or one beyond int64, if a count is negative or
            not finite, if lengths differ, or `num_blocks` is out of range.
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
        # A heavy id that the hash happens to send to its own block needs no row.
        astray = RangePartitioner(cuts).block_of(scramble(keys[heavy])) != blocks
        return cls(keys[heavy][astray], blocks[astray], cuts)

    def _elsewhere(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        return self._tail.block_of(scramble(ids))
