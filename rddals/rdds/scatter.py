"""Sending each rating to two blocks: its user's and its product's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.checked_blocks import checked_blocks
from rddals.blocks.packed import PackedRatings
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.errors import RddalsError
from rddals.rdds.ingest import read_batches
from rddals.rdds.shuffles import Shuffle
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

#: A side; the origin as (partition, batch); and ratings of that batch.
Piece = tuple[int, tuple[int, int], PackedRatings]


def scatter_ratings(
    source: RDD[Any], partitioners: tuple[Partitioner, Partitioner], task_reports: TaskReports
) -> Shuffle:
    """Return a shuffle of pairs ``(block, piece)``.

    It has as many partitions as the side with more blocks has blocks. Spark retries a task that
    raises, so the error of an invalid rating is reported as "error" instead.
    """
    pieces = source.mapPartitionsWithIndex(partial(_split, partitioners, task_reports))
    return Shuffle(pieces, max(partitioner.num_blocks for partitioner in partitioners))


def own_ratings(
    pieces: Iterable[tuple[int, Piece]], side: int, duplicates: str = "keep"
) -> RatingBlock:
    """Return all ratings of one side in a partition, in the order of their source.

    Spark delivers shuffled records in any order, so the pieces are sorted by origin.
    """
    by_origin = {origin: piece for _, (piece_side, origin, piece) in pieces if piece_side == side}
    batches = [by_origin[origin].unpacked() for origin in sorted(by_origin)]
    return RatingBlock.concatenate(batches).combined(duplicates)


@spark_task
def _split(
    partitioners: tuple[Partitioner, Partitioner],
    task_reports: TaskReports,
    partition: int,
    elements: Iterable[Any],
) -> Iterator[tuple[int, Piece]]:
    """Yield each rating of a partition twice, in pieces ``(block, (side, origin, ratings))``.

    The origin is (partition, batch).
    """
    try:
        for number, batch in enumerate(read_batches(partition, elements)):
            packed = PackedRatings.of(batch)
            for side, ids in ((USERS, batch.users), (PRODUCTS, batch.products)):
                for block, piece in _pieces(packed, checked_blocks(partitioners[side], ids)):
                    yield block, (side, (partition, number), piece)
    except RddalsError as error:
        # If the task raised it, Spark would retry and then bury it in a Java traceback.
        task_reports.add("error", partition, error)


def _pieces(batch: PackedRatings, blocks: NDArray[np.int32]) -> Iterator[tuple[int, PackedRatings]]:
    """Split `batch` by block number; blocks without ratings get no piece."""
    narrow = blocks.astype(np.uint16) if blocks.max(initial=0) < 2**16 else blocks
    order = np.argsort(narrow, kind="stable")  # a radix sort, for 16 bits
    counts = np.bincount(blocks)
    stops = np.cumsum(counts)
    for block in np.flatnonzero(counts).tolist():
        yield block, batch.take(order[stops[block] - counts[block] : stops[block]])
