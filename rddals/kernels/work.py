"""How much arithmetic a half-step is."""

from __future__ import annotations

from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partitioners import HashPartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.config import Objective
from rddals.kernels.half_step import DUAL_SHARE, half_step

__all__ = ["flops", "seconds_per_flop"]


def flops(degrees: NDArray[Any], rank: int) -> NDArray[np.float64]:
    """Floating-point operations of solving rows of some degrees, in the form that is cheaper.

    Gathering d rows counts as one operation per number; a system of order n takes n^3 / 3, and
    its normal equations as many multiplications and additions as a symmetric product has (Golub
    and Van Loan, "Matrix Computations", 4th ed., sections 1.1 and 4.2).

    Parameters
    ----------
    degrees : ndarray, shape (n,)
        Ratings per row.
    rank : int

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    d = degrees.astype(np.float64)
    order = np.where(d < DUAL_SHARE * rank, d, rank)
    inner = np.where(d < DUAL_SHARE * rank, rank, d)
    work: NDArray[np.float64] = d * rank + order**2 * inner + order**3 / 3 + 4 * d * rank
    return work


@cache
def seconds_per_flop(rank: int) -> float:
    """What an operation takes here, of a half-step of rows of 20 and of 200 ratings; measured."""
    users = np.repeat(np.arange(40), np.tile([20, 200], 20)).astype(np.int32)
    products = np.concatenate([np.arange(d) for d in np.tile([20, 200], 20)]).astype(np.int32)
    ratings = RatingBlock(users, products, np.ones(len(users), dtype=np.float32))
    in_block = link(0, ratings, 0, HashPartitioner(1)).in_block
    rows = np.random.default_rng(1).random((200, rank), dtype=np.float32)
    objective = Objective(rank=rank, lambda_=0.1)
    work = flops(in_block.degrees, rank).sum()
    seconds = []
    for _ in range(3):
        start = perf_counter()
        half_step(in_block, rows, objective)
        seconds.append(perf_counter() - start)
    return float(min(seconds) / work)
