"""Placement by remainder, as in Spark's MLlib."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from partitioners.base import Partitioner


class HashPartitioner(Partitioner):
    """Placement by the non-negative remainder of the id, exactly as in Spark's MLlib.

    MLlib hashes an int to itself and computes ``nonNegativeMod(id, num_blocks)``: Java's ``%``,
    plus `num_blocks` if the result is negative. NumPy's remainder has the sign of the divisor, so
    it gives the same result. Ids outside int32, which MLlib rejects, follow the same rule.

    This partitioner needs no fit and no table, but ignores degrees: consecutive ids spread evenly
    over the blocks, while a popular id, or ids with a common factor, make one block heavier.

    Parameters
    ----------
    num_blocks : int
        The number of blocks, from 1 to 2**31 - 1.

    Raises
    ------
    TypeError
        If `num_blocks` is not an integer.
    ValueError
        If `num_blocks` is out of range.

    Examples
    --------
    >>> HashPartitioner(3).block_of([-1, 0, 1, 5])
    array([2, 0, 1, 2], dtype=int32)
    """

    def _place(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        return (ids % self.num_blocks).astype(np.int32)
