"""Fold-in: users are solved against products that stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, Broadcast

from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock
from rddals.config import Objective
from rddals.errors import RatingError, UnknownIdError
from rddals.exchange import EXCHANGES, OwnRows
from rddals.kernels.half_step import gram
from rddals.rdds.factors import FactorTable
from rddals.rdds.ingest import read_batches
from rddals.rdds.lifetimes import discard
from rddals.rdds.links import NoRatingsError, build_links
from rddals.rdds.worker_tuning import spark_task
from rddals.training.block_step import first_step, solve_step
from rddals.training.start import start_from

__all__ = ["fold_in"]

#: Moves the rows of the products that were rated, to the blocks that need them, and no others.
EXCHANGE = EXCHANGES["shuffle"]


def fold_in(
    source: RDD[Any],
    users: FactorTable,
    products: FactorTable,
    objective: Objective,
    duplicates: str,
    *,
    drop_unknown: bool,
) -> FactorTable:
    """The users' table with a row for every user of `source`: a half-step of training.

    Where every rating is dropped, it is the table itself.

    Parameters
    ----------
    source : RDD
        As `rddals.rdds.ingest.rating_source` gives it: all ratings of the users it names.
    users, products : FactorTable
    objective : Objective
    duplicates : str
    drop_unknown : bool
        Leave out ratings of products without a row.

    Raises
    ------
    UnknownIdError
        For a product without a row, unless they are dropped.
    RddalsError
        As training does.
    """
    known: Broadcast[NDArray[np.int32]] | None = None
    if drop_unknown:
        known = source.context.broadcast(products.ids())
        source = source.mapPartitionsWithIndex(partial(_of_known_products, known))
    try:
        try:
            links = build_links(source, users.partitioner, products.partitioner, duplicates)
        except NoRatingsError:
            if drop_unknown:
                return users
            raise RatingError("RDD is empty: there is nothing to fold in.") from None
        try:
            start = start_from(products, links.products, _unknown)
            assert start.rows is not None
            sent = EXCHANGE.run_step(
                links.products,
                links.users,
                None,
                partial(first_step, start.make, objective),
                own_rows=OwnRows([start.rows], start.shuffles),
                send=True,
                keep=False,
            )
            try:
                solve = partial(solve_step, objective, "auto", _gram(products, objective))
                solved = EXCHANGE.run_step(
                    links.users, links.products, sent.delivery, solve, send=False, keep=True
                )
            except BaseException:
                if sent.delivery is not None:
                    sent.delivery.release()
                raise
        finally:
            links.release()
    finally:
        if known is not None:
            known.destroy()
    assert solved.factors is not None
    try:
        return users.updated(solved.factors)
    finally:
        discard(solved.factors)


def _gram(products: FactorTable, objective: Objective) -> NDArray[np.float64] | None:
    """Y'Y over all products, which implicit feedback needs."""
    if not objective.implicit:
        return None
    total: NDArray[np.float64] = np.sum(products.blocks.mapPartitions(_grams).collect(), axis=0)
    return total


@spark_task
def _grams(blocks: Iterable[FactorBlock]) -> Iterator[NDArray[np.float64]]:
    return (gram(block.rows) for block in blocks)


@spark_task
def _of_known_products(
    known: Broadcast[NDArray[np.int32]], partition: int, elements: Iterable[Any]
) -> Iterator[RatingBlock]:
    for batch in read_batches(partition, elements):
        here = np.isin(batch.products, known.value)
        yield RatingBlock(batch.users[here], batch.products[here], batch.ratings[here])


def _unknown(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    raise UnknownIdError(
        f"productId: {ids[0]} not found in the model; leave out ratings of such products with "
        "unknownProducts='drop', or train a new model."
    )
