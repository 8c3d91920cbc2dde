"""Load balancing: greedy placement, cuts at a common level, and a scrambling hash.

R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM Journal on Applied Mathematics
17(2), 1969, for `longest_first`.
"""

from __future__ import annotations

from heapq import heapreplace

import numpy as np
import numpy.typing as npt

from partitioners.splitmix import mix


def longest_first(
    weights: npt.NDArray[np.float64], num_blocks: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Place weights in descending order, each in the lightest block.

    Return the block of each weight (h,) and the load of each block (num_blocks,). Blocks are
    numbered in descending order of load.
    """
    lightest = [(0.0, block) for block in range(num_blocks)]  # a valid heap: all loads are equal
    blocks = np.empty(weights.size, dtype=np.int64)
    heaviest_first = np.argsort(-weights, kind="stable")
    for position, weight in zip(
        heaviest_first.tolist(), weights[heaviest_first].tolist(), strict=True
    ):
        load, block = lightest[0]
        heapreplace(lightest, (load + weight, block))
        blocks[position] = block
    descending = sorted((-load, block) for load, block in lightest)
    number = np.empty(num_blocks, dtype=np.int64)
    number[[block for _, block in descending]] = np.arange(num_blocks)
    return number[blocks], np.array([-load for load, _ in descending])


def level_cuts(
    values: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    loads: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Cut scrambled values into ranges whose weights fill descending loads to a common level."""
    num_blocks, total = loads.size, weights.sum()
    if total == 0:  # no light ids: spread unknown ids evenly
        return np.array([b * 2**64 // num_blocks - 2**63 for b in range(1, num_blocks)], np.int64)
    order = np.argsort(values)
    preceding = np.concatenate(([0.0], np.cumsum(weights[order])[:-1]))
    # The common level is the lowest of those that result from filling only the k lightest blocks.
    level = ((total + np.cumsum(loads[::-1])) / np.arange(1, num_blocks + 1)).min()
    targets = np.cumsum(np.maximum(level - loads, 0))[:-1]
    # The last block is the lightest, so every target is below the total and every cut is a value.
    return values[order][np.searchsorted(preceding, targets, side="right") - 1]


def scramble(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Mix the bits of ids by a bijection, so distinct ids stay distinct."""
    scrambled: npt.NDArray[np.int64] = ids.copy()
    mix(scrambled.view(np.uint64))
    return scrambled
