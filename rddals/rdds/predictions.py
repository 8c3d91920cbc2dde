"""Predictions for an RDD of pairs, routed to the blocks of their factors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import Partitioner
from partitioners.splitmix import mix
from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import in_order, whole_numbers
from rddals.blocks.sides import PRODUCTS, USERS
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

Row = NDArray[np.float32]

#: Bits that count the distinct ids of a side: 8 KiB.
COUNTER_BITS = 1 << 16
#: Batches of pairs that are counted in each partition.
COUNTED_BATCHES = 16
#: Types accepted as a pair. They are ordered; a set is not.
PAIR_TYPES = (tuple, list, np.ndarray)


def predict_pairs(
    tables: tuple[FactorTable, FactorTable],
    pairs: RDD[Any],
    default_rows: tuple[Row | None, Row | None],
) -> RDD[tuple[Any, Any, Any]]:
    """Return an RDD of ``(user ids, product ids, predictions)`` in columns.

    Each pair is sent to the block of one of its ids, where it gets that row, and then to the block
    of its other id, where it is predicted. So the side with more distinct ids comes last: it
    spreads the predictions. Unknown ids have their side's default row; without one, their pairs are
    left out.
    """
    first = 1 - more_distinct_side(pairs)
    source, destination = tables[first], tables[1 - first]
    to_source = pairs.mapPartitions(
        partial(_pairs_by_block, first, source.partitioner, _missing(default_rows[first]))
    )
    partitions = source.blocks.getNumPartitions()
    at_source = co_partitioned(
        [with_shuffle_serializer(source.blocks), Shuffle(to_source, partitions).rdd]
    )
    to_destination = at_source.mapPartitions(
        partial(
            _with_rows,
            destination.partitioner,
            _missing(default_rows[1 - first]),
            default_rows[first],
        )
    )
    partitions = destination.blocks.getNumPartitions()
    at_destination = co_partitioned(
        [with_shuffle_serializer(destination.blocks), Shuffle(to_destination, partitions).rdd]
    )
    return at_destination.mapPartitions(partial(_predictions, first, default_rows[1 - first]))


def _missing(default_row: Row | None) -> int:
    """Return the block of ids that the partitioner does not place."""
    return NO_BLOCK if default_row is None else 0


def more_distinct_side(pairs: RDD[Any]) -> int:
    """Return the side with more distinct ids in these pairs, by linear counting.

    Each id sets one of `COUNTER_BITS` bits. If both sides set almost all, either spreads well.

    References
    ----------
    Whang, Vander-Zanden and Taylor, "A linear-time probabilistic counting algorithm for database
    applications", ACM TODS 15(2), 1990.
    """
    bits = np.zeros((2, COUNTER_BITS // 8), dtype=np.uint8)
    for part in pairs.mapPartitions(_counted).collect():
        bits |= part
    users, products = np.unpackbits(bits, axis=1).sum(axis=1)
    return USERS if users > products else PRODUCTS


@spark_task
def _counted(pairs: Iterable[Any]) -> Iterator[NDArray[np.uint8]]:
    bits = np.zeros((2, COUNTER_BITS), dtype=bool)
    pairs = iter(pairs)
    with suppress(RatingTypeError):  # the predictions will raise it
        for columns in islice(_columns(pairs), COUNTED_BATCHES):
            for side, ids in enumerate(columns):
                words = ids.astype(np.uint64)
                mix(words)
                bits[side, words % np.uint64(COUNTER_BITS)] = True
    deque(pairs, maxlen=0)  # Spark kills a worker that does not read its input to the end
    yield np.packbits(bits, axis=1)


def _columns(pairs: Iterable[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield batches of user ids and product ids."""
    pairs = iter(pairs)
    while rows := list(islice(pairs, PAIRS_PER_BATCH)):
        kinds = set(map(type, rows))
        batch = in_order(rows, kinds, roles=2)
        try:
            if not all(issubclass(kind, PAIR_TYPES) for kind in kinds):
                raise TypeError
            if set(map(len, batch)) != {2}:
                raise ValueError
            users, products = (whole_numbers([pair[i] for pair in batch]) for i in range(2))
        except (TypeError, ValueError, OverflowError):
            raise RatingTypeError(
                f"{next(pair for pair in batch if not is_pair(pair))!r} is not a pair of ids. "
                "Pass an RDD of (user, product)."
            ) from None
        yield users, products


@spark_task
def _pairs_by_block(
    side: int, partitioner: Partitioner, missing: int, pairs: Iterable[Any]
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    """Split pairs by the block of their id of `side`, which is the first column."""
    for columns in _columns(pairs):
        ids, others = columns[side], columns[1 - side]
        yield from split_by_block(find_blocks(partitioner, ids, missing), ids, others)


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
def _with_rows(
    partitioner: Partitioner, missing: int, default_row: Row | None, records: Iterable[Any]
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    """Add the row of the first id, and split the pairs by the block of the other."""
    block, batches = block_and_columns(records)
    if block is None:
        return
    for ids, others in batches:
        selected, rows = _rows_or_default(block, ids, default_row)
        blocks = find_blocks(partitioner, others[selected], missing)
        yield from split_by_block(blocks, ids[selected], others[selected], rows)


def _rows_or_default(
    block: FactorBlock, ids: NDArray[Any], default_row: Row | None
) -> tuple[Any, Row]:
    """Return which of `ids` have a row, and the rows; all do if there is a default row."""
    positions, known = block.find(ids)
    if default_row is None:
        return known, block.rows[positions[known]]
    rows = np.repeat(default_row[None, :], len(ids), axis=0)
    rows[known] = block.rows[positions[known]]
    return slice(None), rows


@spark_task
def _predictions(
    first: int, default_row: Row | None, records: Iterable[Any]
) -> Iterator[tuple[Any, Any, Any]]:
    block, batches = block_and_columns(records)
    if block is None:
        return
    for ids, others, first_rows in batches:
        selected, rows = _rows_or_default(block, others, default_row)
        predictions = np.einsum("ij,ij->i", first_rows[selected], rows, dtype=np.float64)
        pair = ids[selected], others[selected]
        yield pair[first], pair[1 - first], predictions
