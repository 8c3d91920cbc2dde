"""Steps that run in the task of one block: its starting factors, and a half-step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import InBlock, LinkBlock
from rddals.config import Kernels, Objective
from rddals.exchange import BlockResult
from rddals.kernels.half_step import Solution, gram, half_step, penalty
from rddals.training.start import RowFactory


@dataclass(frozen=True, slots=True)
class BlockReport:
    """Report of one block's step, for the driver.

    Attributes
    ----------
    loss : float
        Squared errors (weighted, if implicit) plus this side's penalty; 0 for a first step.
    penalty : float
        This side's penalty.
    gram : ndarray of float64, shape (rank, rank), or None
        The block's share of Y'Y, for implicit feedback.
    seconds : dict of str to float
        Time of each part of the half-step.
    kernels : str
        Name of the kernels; empty if none ran.
    """

    loss: float
    penalty: float
    gram: NDArray[np.float64] | None
    seconds: dict[str, float]
    kernels: str


def first_step(
    make: RowFactory,
    objective: Objective,
    block: LinkBlock,
    own: Sequence[FactorBlock],
    received: None,
) -> BlockResult:
    """Return the starting factors of a block.

    `own` has known factors, as of a model to continue from; `make` draws those of all other ids.
    """
    in_block = block.in_block
    if own:
        rows, known = FactorBlock.latest(own, in_block.ids, objective.rank)
        if not known.all():
            rows[~known] = make(in_block.ids[~known])
    else:
        rows = make(in_block.ids)
    start = Solution(rows, 0.0, penalty(in_block, rows, objective), {}, "")
    return _block_result(objective, in_block, start)


def solve_step(
    objective: Objective,
    kernels: Kernels,
    source_gram: NDArray[np.float64] | None,
    block: LinkBlock,
    own: Sequence[FactorBlock],
    source_rows: NDArray[np.float32] | None,
) -> BlockResult:
    """Run a half-step in a block.

    `source_gram` is Y'Y over all source rows, for implicit feedback.
    """
    in_block = block.in_block
    if source_rows is None or not len(in_block.ids):
        rows = np.empty((0, objective.rank), dtype=np.float32)
        return _block_result(objective, in_block, Solution(rows, 0.0, 0.0, {}, ""))
    solution = half_step(in_block, source_rows, objective, source_gram, kernels=kernels)
    return _block_result(objective, in_block, solution)


def _block_result(objective: Objective, in_block: InBlock, solution: Solution) -> BlockResult:
    # The other side's next half-step needs Y'Y over all rows, so each block adds its share.
    share = gram(solution.rows) if objective.implicit else None
    report = BlockReport(solution.loss, solution.penalty, share, solution.seconds, solution.kernels)
    return BlockResult(FactorBlock(in_block.ids, solution.rows), report)
