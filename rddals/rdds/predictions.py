"""Predictions for an RDD of pairs, routed to the blocks of their factors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import whole_numbers
from rddals.errors import RatingTypeError
from rddals.rdds.factors import (
    NO_BLOCK,
    PAIRS_PER_BATCH,
    FactorTable,
    block_and_columns,
    find_blocks,
    split_by_block,
)
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task

#: Types accepted as a pair. They are ordered; a set is not.
PAIR_TYPES = (tuple, list, np.ndarray)


def predict_pairs(
    users: FactorTable,
    products: FactorTable,
    pairs: RDD[Any],
    default_rows: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> RDD[tuple[Any, Any, Any]]:
    """Return an RDD of ``(user ids, product ids, predictions)`` in columns.

    Each pair is sent to its user's block, where it gets the user's row, and then to its product's
    block. Unknown users and products have the rows `default_rows`, shape (rank,); without default
    rows, pairs with an unknown id are left out.
    """
    user_default, product_default = default_rows or (None, None)
    missing = NO_BLOCK if default_rows is None else 0
    to_users = pairs.mapPartitions(partial(_pairs_by_block, users.partitioner, missing))
    partitions = users.blocks.getNumPartitions()
    at_users = co_partitioned(
        [with_shuffle_serializer(users.blocks), Shuffle(to_users, partitions).rdd]
    )
    to_products = at_users.mapPartitions(
        partial(_with_user_rows, products.partitioner, missing, user_default)
    )
    partitions = products.blocks.getNumPartitions()
    at_products = co_partitioned(
        [with_shuffle_serializer(products.blocks), Shuffle(to_products, partitions).rdd]
    )
    return at_products.mapPartitions(partial(_predictions, product_default))


@spark_task
def _pairs_by_block(
    partitioner: Partitioner, missing: int, pairs: Iterable[Any]
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    pairs = iter(pairs)
    while batch := list(islice(pairs, PAIRS_PER_BATCH)):
        try:
            if not all(issubclass(kind, PAIR_TYPES) for kind in set(map(type, batch))):
                raise TypeError
            if set(map(len, batch)) != {2}:
                raise ValueError
            users, products = (whole_numbers([pair[i] for pair in batch]) for i in range(2))
        except (TypeError, ValueError, OverflowError):
            raise RatingTypeError(
                f"{next(pair for pair in batch if not is_pair(pair))!r} is not a pair of ids. "
                "Pass an RDD of (user, product)."
            ) from None
        yield from split_by_block(find_blocks(partitioner, users, missing), users, products)


def is_pair(pair: Any) -> bool:
    """Return whether `pair` can be read as a user id and a product id."""
    if not isinstance(pair, PAIR_TYPES):
        return False
    try:
        user, product = pair
        whole_numbers([user, product])
    except (TypeError, ValueError, OverflowError):
        return False
    return True


@spark_task
def _with_user_rows(
    partitioner: Partitioner,
    missing: int,
    default_row: NDArray[np.float32] | None,
    records: Iterable[Any],
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    block, batches = block_and_columns(records)
    if block is None:
        return
    for users, products in batches:
        selected, rows = _rows_or_default(block, users, default_row)
        blocks = find_blocks(partitioner, products[selected], missing)
        yield from split_by_block(blocks, users[selected], products[selected], rows)


def _rows_or_default(
    block: FactorBlock, ids: NDArray[Any], default_row: NDArray[np.float32] | None
) -> tuple[Any, NDArray[np.float32]]:
    """Return which of `ids` have a row, and the rows; all do if there is a default row."""
    positions, known = block.find(ids)
    if default_row is None:
        return known, block.rows[positions[known]]
    rows = np.repeat(default_row[None, :], len(ids), axis=0)
    rows[known] = block.rows[positions[known]]
    return slice(None), rows


@spark_task
def _predictions(
    default_row: NDArray[np.float32] | None, records: Iterable[Any]
) -> Iterator[tuple[Any, Any, Any]]:
    block, batches = block_and_columns(records)
    if block is None:
        return
    for users, products, user_rows in batches:
        selected, rows = _rows_or_default(block, products, default_row)
        predictions = np.einsum("ij,ij->i", user_rows[selected], rows, dtype=np.float64)
        yield users[selected], products[selected], predictions
