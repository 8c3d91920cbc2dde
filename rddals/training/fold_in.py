"""Fold-in: solving users against fixed products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, Broadcast

from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.config import Objective, Settings
from rddals.errors import RatingError, SettingError, UnknownIdError
from rddals.exchange import EXCHANGES, HalfStep, OwnRows, StepRunner
from rddals.kernels.half_step import gram
from rddals.rdds.factors import FactorTable, ids_of, newest_rows
from rddals.rdds.ingest import read_batches
from rddals.rdds.lifetimes import cut_lineage
from rddals.rdds.links import NoRatingsError, build_links
from rddals.rdds.worker_tuning import spark_task
from rddals.training.block_step import first_step, solve_step
from rddals.training.start import start_from

#: Sends only the rows of rated products, and only to the blocks that need them.
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
    """Return the users' table with a row for every user of `source`, solved by one half-step.

    A rating of a product without a row raises `UnknownIdError`, or is dropped if `drop_unknown`. If
    every rating is dropped, return `users` itself.
    """
    with ExitStack() as stack:
        if drop_unknown:
            known = source.context.broadcast(ids_of(products.blocks))
            stack.callback(known.destroy)
            source = source.mapPartitionsWithIndex(partial(_ratings_of_known_products, known))
        try:
            links = build_links(source, users.partitioner, products.partitioner, duplicates)
        except NoRatingsError:
            if drop_unknown:
                return users
            raise RatingError("RDD is empty: there is nothing to fold in.") from None
        stack.callback(links.release)
        runner = StepRunner(EXCHANGE, (links.users, links.products))
        stack.callback(runner.close)
        start = start_from(products, links.products, _raise_unknown)
        assert start.rows is not None
        own_rows = OwnRows([start.rows], start.shuffles)
        send = partial(first_step, start.make, objective)
        runner.run(HalfStep(PRODUCTS, send, own_rows, send=True), "fold-in products")
        solve = partial(solve_step, objective, "auto", _gram(products, objective))
        runner.run(HalfStep(USERS, solve, keep=True), "fold-in users")
        solved = runner.factors[USERS]
        assert solved is not None
        blocks = newest_rows([users.blocks, solved])
        cut_lineage(blocks)
        return FactorTable(blocks, users.partitioner)


def fold_settings(settings: Settings | None, rank: int, **changes: Any) -> Settings:
    """Return the settings of a training, None if unknown, with the changes that are not None.

    Raise `SettingError` if one is out of its range, or missing where the training is unknown.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    if settings is not None:
        document = settings.document()
    elif "lambda_" in given:
        document = {"rank": rank, "iterations": 0, "nonnegative": False, "seed": 0}
        document["implicit"] = "alpha" in given
    else:
        raise SettingError(
            "MLlib saved this model without its training settings; pass lambda_, and alpha if "
            "the feedback is implicit."
        )
    if "alpha" in given and not document["implicit"]:
        raise SettingError(
            f"alpha={given['alpha']!r} is for implicit feedback, but this model was trained on "
            "explicit ratings; leave it out."
        )
    return Settings.checked(**(document | given))


def _gram(products: FactorTable, objective: Objective) -> NDArray[np.float64] | None:
    """Return Y'Y over all products for implicit feedback, else None."""
    if not objective.implicit:
        return None
    return np.sum(products.blocks.mapPartitions(_grams).collect(), axis=0)


@spark_task
def _grams(blocks: Iterable[FactorBlock]) -> Iterator[NDArray[np.float64]]:
    return (gram(block.rows) for block in blocks)


@spark_task
def _ratings_of_known_products(
    known: Broadcast[NDArray[np.int32]], partition: int, elements: Iterable[Any]
) -> Iterator[RatingBlock]:
    for batch in read_batches(partition, elements):
        selected = np.isin(batch.products, known.value)
        yield RatingBlock(batch.users[selected], batch.products[selected], batch.ratings[selected])


def _raise_unknown(ids: NDArray[np.int32]) -> NDArray[np.float32]:
    raise UnknownIdError(
        f"productId: {ids[0]} not found in the model. Leave out ratings of such products with "
        "unknownProducts='drop', or train a new model."
    )
