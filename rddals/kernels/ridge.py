"""Exact solution of the rows of the biased model, with the rows of the other side fixed.

The row ``(U, b)`` that minimises an id's squared errors plus the penalty
``lambda |U|^2 + lambda_b b^2`` is a ridge regression of ``r - mean - b_y`` on ``(P_y, 1)``: a
half-step whose source rows have one more column. A column of ones would penalise the bias with
lambda. A column of ``c = sqrt(lambda / lambda_b)`` penalises it with lambda_b, and the solution
contains ``b / c``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.links import InBlock
from rddals.config import Objective
from rddals.kernels.half_step import half_step

Rows = NDArray[np.float32]


def ridge_solve(
    in_block: InBlock, source_rows: Rows, mean: float, *, lambda_: float, bias_lambda: float
) -> Rows:
    """Solve the factors and biases (n, rank + 1) of a block's ids from all their ratings.

    `source_rows` (m, rank + 1) are those of the other side, in canonical order; both penalties are
    positive. Ratings so large that rows are not finite raise `OverflowingRatingsError`.
    """
    column = np.sqrt(lambda_ / bias_lambda)
    design = source_rows.copy()
    design[:, -1] = column
    offsets = source_rows[:, -1].astype(np.float64) + mean
    targets = (in_block.ratings - offsets[in_block.sources]).astype(np.float32)
    objective = Objective(source_rows.shape[1], lambda_, weighted=False)
    rows = half_step(replace(in_block, codes=targets, scale=None), design, objective).rows
    rows[:, -1] *= column
    return rows
