"""What is done in one block with its share of a stream's batch. Sent to the workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.biased import BiasedRows, shown_width, state_width
from rddals.blocks.exact import exact_sum
from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import InBlock
from rddals.blocks.start import id_start
from rddals.config import StreamSettings
from rddals.errors import OverflowingRatingsError
from rddals.exchange import Solved
from rddals.kernels.descent import descend, squared_error
from rddals.rdds.links import PRODUCTS

__all__ = ["BatchReport", "learn_step", "show_step"]

#: Length of a new product's factor. Were both sides' zero, neither would ever learn.
START_LENGTH = 0.1


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What the driver learns of one block.

    Attributes
    ----------
    new_ids : int
        Ids that no batch before had.
    total : Fraction
        The sum of the block's ratings; of users that are shown.
    squared_error : float
        Of the model before this batch; of products in their first half-update.
    """

    new_ids: int = 0
    total: Fraction = Fraction(0)
    squared_error: float = 0.0


def show_step(rank: int, in_block: InBlock, own: Sequence[FactorBlock], received: None) -> Solved:
    """The rows that a batch's users have; those of new ones are zero."""
    rows, known = FactorBlock.latest(own, in_block.ids, state_width(rank))
    report = BatchReport(int((~known).sum()), exact_sum(in_block.ratings))
    return Solved(rows, report, sent=shown_width(rank))


def learn_step(
    settings: StreamSettings,
    side: int,
    iteration: int,
    mean: float,
    mean_before: float,
    in_block: InBlock,
    own: Sequence[FactorBlock],
    source_rows: NDArray[np.float32] | None,
) -> Solved:
    """One half-update: the rows of a batch's ids after a step.

    Parameters
    ----------
    settings : StreamSettings
    side, iteration : int
        `USERS` or `PRODUCTS`; from 1.
    mean, mean_before : float
        Of all ratings with this batch, and without it.
    in_block : InBlock
    own : sequence of FactorBlock
        The rows so far: all levels for the products' first half-update, else those that the
        half-update before it left.
    source_rows : ndarray of float32, shape (m, rank + 1)
    """
    rank = settings.rank
    report = BatchReport()
    if iteration == 1:
        rows, known = FactorBlock.latest(own, in_block.ids, state_width(rank))
        found = BiasedRows.found(rows)
    else:
        rows, known = FactorBlock.latest(own, in_block.ids, 2 * rank + 3)
        found = BiasedRows.midway(rows)
    stepped = found.shown
    if len(in_block.ids):
        assert source_rows is not None
        if side == PRODUCTS and iteration == 1:
            error = squared_error(in_block, found.shown, source_rows, mean_before)
            report = BatchReport(int((~known).sum()), squared_error=error)
            new = in_block.ids[~known]
            start = id_start(new, rank=rank, seed=settings.seed, side=side)
            found.shown[~known, :rank] = START_LENGTH * start
        stepped = descend(
            in_block,
            found.shown,
            found.seen,
            source_rows,
            mean,
            lambda_=settings.lambda_,
            gamma=settings.gamma,
            anchor=found.anchor if iteration > 1 else None,
        )
        _raise_if_overflown(in_block, stepped)
    after = replace(found, shown=stepped)
    if iteration < settings.iterations:
        return Solved(after.midway_rows(), report, sent=shown_width(rank))
    return Solved(after.final_rows(_degrees(in_block)), report, sent=shown_width(rank))


def _degrees(in_block: InBlock) -> NDArray[np.int64]:
    """Ratings of each of the block's ids, in their order."""
    degrees = np.empty(len(in_block.ids), dtype=np.int64)
    degrees[in_block.order] = in_block.degrees
    return degrees


def _raise_if_overflown(in_block: InBlock, rows: NDArray[np.float32]) -> None:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        largest = float(np.abs(in_block.ratings).max())
        raise OverflowingRatingsError(
            f"The rows of {int((~finite).sum())} ids, {in_block.ids[np.argmin(finite)]} the first, "
            f"overflow float32: ratings are as large as {largest:g}. Scale the ratings down."
        )
