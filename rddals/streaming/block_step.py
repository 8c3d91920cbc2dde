"""Steps of one block for its share of a stream's batch. They run on the workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import InBlock, LinkBlock
from rddals.blocks.sides import PRODUCTS
from rddals.blocks.start import id_start
from rddals.config import StreamSettings
from rddals.errors import OverflowingRatingsError
from rddals.exchange import BlockResult
from rddals.kernels.ridge import ridge_solve
from rddals.kernels.sgd import sgd_step, squared_error
from rddals.streaming.incremental_links import IncrementalBlock
from rddals.streaming.rows import BiasedRows, intermediate_width, parameter_width, state_width

Rows = NDArray[np.float32]

#: Length of a new product's factor. If both sides started at zero, neither would ever learn.
START_LENGTH = 0.1


@dataclass(frozen=True, slots=True)
class Means:
    """Mean of all ratings before a batch and after it."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Report of one block to the driver.

    Attributes
    ----------
    new_ids : int
        Number of ids that no earlier batch had; set when a side's stored rows are read.
    squared_error : float
        Squared error of the model before this batch; set by the first half-update.
    """

    new_ids: int = 0
    squared_error: float = 0.0


def lookup_step(
    settings: StreamSettings,
    side: int,
    block: LinkBlock,
    own: Sequence[FactorBlock],
    received: None,
) -> BlockResult:
    """Return the stored rows of a block's ids, and starting rows for new ids."""
    rows, new = _current_rows(settings, side, block.ids, own)
    return BlockResult(FactorBlock(block.ids, rows), BatchReport(new_ids=int(new.sum())))


def update_step(
    settings: StreamSettings,
    side: int,
    iteration: int,
    first: bool,
    means: Means,
    block: LinkBlock,
    own: Sequence[FactorBlock],
    received: Rows | None,
) -> BlockResult:
    """Return the rows of a batch's ids after one half-update; `iteration` counts from 1.

    `own` has all levels if this side learns `first` and this is the first iteration, else the
    result of its last step. `received` has the other side's rows, from `lookup_step` or from its
    last half-update.
    """
    in_block, ids = block.in_block, block.ids
    batch = block.batch if isinstance(block, IncrementalBlock) else in_block
    report = BatchReport()
    if iteration > 1:
        rows, _ = FactorBlock.latest(own, ids, intermediate_width(settings.rank))
        current = BiasedRows.from_intermediate(rows)
    elif first:
        rows, new = _current_rows(settings, side, ids, own)
        current = BiasedRows.from_state(rows)
        if len(in_block.ids) and batch is not None and received is not None:
            previous = np.where(new[:, None], 0, current.parameters)
            error = _error_before(block, batch, previous, received, means.before)
            report = BatchReport(int(new.sum()), error)
    else:
        rows, _ = FactorBlock.latest(own, ids, state_width(settings.rank))
        current = BiasedRows.from_state(rows)
    positions = np.searchsorted(ids, in_block.ids)
    updated = current
    if len(in_block.ids):
        assert received is not None
        source_rows = received[:, : parameter_width(settings.rank)]
        new_rows = _step(
            settings, side, iteration, means, in_block, current.only(positions), source_rows
        )
        _check_overflow(in_block, new_rows)
        updated = current.with_parameters(positions, new_rows)
    sent = FactorBlock(ids, np.ascontiguousarray(updated.parameters))
    if iteration < settings.iterations:
        return BlockResult(FactorBlock(ids, updated.intermediate_rows()), report, sent)
    degrees = np.zeros(len(in_block.ids), dtype=np.int64)
    if batch is not None:
        degrees[np.searchsorted(in_block.ids, batch.ids[batch.order])] = batch.degrees
    final = FactorBlock(in_block.ids, updated.only(positions).final_rows(degrees))
    return BlockResult(final, report, sent)


def _current_rows(
    settings: StreamSettings, side: int, ids: NDArray[np.int32], own: Sequence[FactorBlock]
) -> tuple[Rows, NDArray[np.bool_]]:
    """Return the current or starting rows of ids, and a mask of the new ids.

    A new user starts at zero, since its first ratings determine its row.
    """
    rows, known = FactorBlock.latest(own, ids, state_width(settings.rank))
    if side == PRODUCTS:
        start = id_start(ids[~known], rank=settings.rank, seed=settings.seed, side=side)
        rows[~known, : settings.rank] = START_LENGTH * start
    return rows, ~known


def _error_before(
    block: LinkBlock, batch: InBlock, rows: Rows, received: Rows, mean: float
) -> float:
    """Return the squared error of the batch's ratings; rows of new ids count as zero."""
    sources = np.where(received[:, -1:] > 0, received[:, :-1], 0)
    in_block = block.in_block
    if batch is not in_block:
        # The batch's sources are a subset of the received rows, in an order of their own.
        ascending = np.argsort(in_block.source_ids)
        places = np.searchsorted(in_block.source_ids[ascending], batch.source_ids)
        sources = sources[ascending[places]]
    own = rows[np.searchsorted(block.ids, batch.ids)]
    return squared_error(batch, own, sources, mean)


def _step(
    settings: StreamSettings,
    side: int,
    iteration: int,
    means: Means,
    in_block: InBlock,
    current: BiasedRows,
    source_rows: Rows,
) -> Rows:
    if settings.update == "als":
        return ridge_solve(
            in_block,
            source_rows,
            means.after,
            lambda_=settings.lambda_,
            bias_lambda=settings.bias_lambda[side],
        )
    return sgd_step(
        in_block,
        current.parameters,
        current.counts,
        source_rows,
        means.after,
        lambda_=settings.lambda_,
        gamma=settings.gamma,
        anchor=current.anchor if iteration > 1 else None,
    )


def _check_overflow(in_block: InBlock, rows: Rows) -> None:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        largest = float(np.abs(in_block.ratings).max())
        raise OverflowingRatingsError(
            f"The rows of {int((~finite).sum())} ids, the first {in_block.ids[np.argmin(finite)]}, "
            f"overflow float32: ratings are as large as {largest:g}. Scale the ratings down."
        )
