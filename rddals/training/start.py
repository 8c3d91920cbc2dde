"""Where the rows that training starts from come from, and how they reach their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import HashPartitioner, Partitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock
from rddals.blocks.start import id_start, mllib_start
from rddals.errors import InconsistentRatingsError
from rddals.rdds.factors import (
    FactorTable,
    blocks_or_nowhere,
    split_by_block,
    without_block_numbers,
)
from rddals.rdds.links import REMEDY, Links
from rddals.rdds.shuffles import Shuffle, with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task

__all__ = ["RowFactory", "Start", "start_by_id", "start_from", "start_of_mllib"]

RowFactory = Callable[[NDArray[np.int32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Start:
    """Where one side starts.

    Attributes
    ----------
    make : callable
        Rows of a block's ids, for those that nothing was brought for; sent to the workers.
    brought : RDD of FactorBlock, or None
        Rows in the partitions of their blocks; None if every block makes its own.
    shuffles : tuple of Shuffle
        What `brought` is made from.
    """

    make: RowFactory
    rows: RDD[FactorBlock] | None = None
    shuffles: tuple[Shuffle, ...] = ()


def start_by_id(links: Links, rank: int, seed: int) -> Start:
    """Every id starts by itself, wherever it lives."""
    return Start(partial(id_start, rank=rank, seed=seed, side=links.side))


def start_of_mllib(links: Links, rank: int, seed: int) -> Start:
    """MLlib's start, which depends on the ids that share a block under its hash placement.

    Where ids live there, each block draws its own rows. From anywhere else the ids go to where
    MLlib would have them, and their rows come back: once, 4 bytes and 4 times the rank for each.
    """
    blocks = links.partitioner.num_blocks
    draw = partial(mllib_start, rank=rank, seed=seed, side=links.side, blocks=blocks)
    if links.partitioner == HashPartitioner(blocks):
        return Start(draw)
    ids = Shuffle(links.rdd.mapPartitions(partial(_ids_by_hash, blocks)), blocks)
    drawn = ids.rdd.mapPartitions(partial(_drawn, draw, links.partitioner))
    rows = Shuffle(drawn, links.partitions)
    return Start(partial(_missing, rank), without_block_numbers(rows), (ids, rows))


def start_from(table: FactorTable, links: Links, make: RowFactory) -> Start:
    """The rows of a table, whatever partitioner it has; `make` those of ids it does not know.

    Where both place ids alike the rows are read where they are.
    """
    alike = table.partitioner == links.partitioner
    if alike and table.blocks.getNumPartitions() == links.partitions:
        return Start(make, with_shuffle_serializer(table.blocks))
    moved = Shuffle(
        table.blocks.mapPartitions(partial(_moved, links.partitioner)), links.partitions
    )
    return Start(make, without_block_numbers(moved), (moved,))


def _missing(rank: int, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """No rows: all were to be brought, and a block cannot draw those of another placement."""
    if len(ids):
        raise InconsistentRatingsError(f"No starting row was brought for id {ids[0]}. {REMEDY}")
    return np.empty((0, rank), dtype=np.float32)


@spark_task
def _ids_by_hash(
    blocks: int, link_blocks: Iterable[LinkBlock]
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    for link_block in link_blocks:
        ids = link_block.in_block.ids
        for block, (here,) in split_by_block(HashPartitioner(blocks).block_of(ids), ids):
            yield block, here


@spark_task
def _drawn(
    draw: RowFactory, partitioner: Partitioner, pieces: Iterable[tuple[int, NDArray[np.int32]]]
) -> Iterator[tuple[int, FactorBlock]]:
    parts = [ids for _, ids in pieces]
    if parts:
        ids = np.sort(np.concatenate(parts))
        for block, columns in split_by_block(partitioner.block_of(ids), ids, draw(ids)):
            yield block, FactorBlock(*columns)


@spark_task
def _moved(
    partitioner: Partitioner, factor_blocks: Iterable[FactorBlock]
) -> Iterator[tuple[int, FactorBlock]]:
    for factors in factor_blocks:
        # A partitioner fitted to the new ratings need not place every id of the old ones.
        for block, columns in split_by_block(
            blocks_or_nowhere(partitioner, factors.ids), factors.ids, factors.rows
        ):
            yield block, FactorBlock(*columns)
