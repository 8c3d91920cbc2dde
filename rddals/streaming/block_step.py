"""What is done in one block with its share of a stream's batch. Sent to the workers."""

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

__all__ = ["BatchReport", "Means", "lookup_step", "update_step"]

Rows = NDArray[np.float32]

#: Length of a new product's factor. Were both sides' zero, neither would ever learn.
START_LENGTH = 0.1


@dataclass(frozen=True, slots=True)
class Means:
    """The mean of all ratings before a batch, and with it."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What the driver learns of one block.

    Attributes
    ----------
    new_ids : int
        Ids that no batch before had; told when a side's rows are looked up.
    squared_error : float
        Of the model before this batch; of the side that learns first, when it does.
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
    """The rows that one side has, as they are kept; those of new ids have seen no rating."""
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
    """One half-update: the rows of a batch's ids after a step.

    Parameters
    ----------
    settings : StreamSettings
    side, iteration : int
        `USERS` or `PRODUCTS`; from 1.
    first : bool
        Whether this side learns first.
    means : Means
    block : LinkBlock
    own : sequence of FactorBlock
        This side's rows: all levels if it is the first to learn, else what its last step kept.
    received : ndarray of float32
        Of the other side what `lookup_step` shows, or what its last half-update sent.
    """
    in_block, ids = block.in_block, block.ids
    batch = block.batch if isinstance(block, IncrementalBlock) else in_block
    report = BatchReport()
    if iteration > 1:
        rows, _ = FactorBlock.latest(own, ids, intermediate_width(settings.rank))
        found = BiasedRows.from_intermediate(rows)
    elif first:
        rows, new = _current_rows(settings, side, ids, own)
        found = BiasedRows.from_state(rows)
        if len(in_block.ids) and batch is not None and received is not None:
            known = np.where(new[:, None], 0, found.parameters)
            error = _error_before(block, batch, known, received, means.before)
            report = BatchReport(int(new.sum()), error)
    else:
        rows, _ = FactorBlock.latest(own, ids, state_width(settings.rank))
        found = BiasedRows.from_state(rows)
    here = np.searchsorted(ids, in_block.ids)
    after = found
    if len(in_block.ids):
        assert received is not None
        source_rows = received[:, : parameter_width(settings.rank)]
        stepped = _stepped(
            settings, side, iteration, means, in_block, found.only(here), source_rows
        )
        _raise_if_overflown(in_block, stepped)
        after = found.with_parameters(here, stepped)
    sent = FactorBlock(ids, np.ascontiguousarray(after.parameters))
    if iteration < settings.iterations:
        return BlockResult(FactorBlock(ids, after.intermediate_rows()), report, sent)
    degrees = np.zeros(len(in_block.ids), dtype=np.int64)
    if batch is not None:
        degrees[np.searchsorted(in_block.ids, batch.ids[batch.order])] = batch.degrees
    kept = FactorBlock(in_block.ids, after.only(here).final_rows(degrees))
    return BlockResult(kept, report, sent)


def _current_rows(
    settings: StreamSettings, side: int, ids: NDArray[np.int32], own: Sequence[FactorBlock]
) -> tuple[Rows, NDArray[np.bool_]]:
    """The rows that ids have, or start with, and which are new.

    A new user's is zero, since its first ratings make it what it is.
    """
    rows, known = FactorBlock.latest(own, ids, state_width(settings.rank))
    if side == PRODUCTS:
        start = id_start(ids[~known], rank=settings.rank, seed=settings.seed, side=side)
        rows[~known, : settings.rank] = START_LENGTH * start
    return rows, ~known


def _error_before(
    block: LinkBlock, batch: InBlock, known: Rows, received: Rows, mean: float
) -> float:
    """The squared error of the batch's ratings; rows of new ids count as zero."""
    shown = np.where(received[:, -1:] > 0, received[:, :-1], 0)
    in_block = block.in_block
    if batch is not in_block:
        # The batch's sources are some of all that were received, in an order of their own.
        ascending = np.argsort(in_block.source_ids)
        places = np.searchsorted(in_block.source_ids[ascending], batch.source_ids)
        shown = shown[ascending[places]]
    own = known[np.searchsorted(block.ids, batch.ids)]
    return squared_error(batch, own, shown, mean)


def _stepped(
    settings: StreamSettings,
    side: int,
    iteration: int,
    means: Means,
    in_block: InBlock,
    found: BiasedRows,
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
        found.parameters,
        found.counts,
        source_rows,
        means.after,
        lambda_=settings.lambda_,
        gamma=settings.gamma,
        anchor=found.anchor if iteration > 1 else None,
    )


def _raise_if_overflown(in_block: InBlock, rows: Rows) -> None:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        largest = float(np.abs(in_block.ratings).max())
        raise OverflowingRatingsError(
            f"The rows of {int((~finite).sum())} ids, {in_block.ids[np.argmin(finite)]} the first, "
            f"overflow float32: ratings are as large as {largest:g}. Scale the ratings down."
        )
