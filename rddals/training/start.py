"""First rows of both sides, and how they reach their blocks."""

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
    find_blocks,
    split_by_block,
    without_block_numbers,
)
from rddals.rdds.links import REMEDY, Links
from rddals.rdds.shuffles import Shuffle, with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task

RowFactory = Callable[[NDArray[np.int32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Start:
    """First rows of one side.

    Attributes
    ----------
    make : callable
        Function from ids to rows, for ids without a row in `rows`.
    rows : RDD of FactorBlock, or None
        First rows in the partitions of their blocks; None if every block makes its own.
    shuffles : tuple of Shuffle
        Shuffles from which `rows` is computed.
    """

    make: RowFactory
    rows: RDD[FactorBlock] | None = None
    shuffles: tuple[Shuffle, ...] = ()


def start_by_id(links: Links, rank: int, seed: int) -> Start:
    """Return a start in which each row depends on its id and the seed, not on its block."""
    return Start(partial(id_start, rank=rank, seed=seed, side=links.side))


def start_of_mllib(links: Links, rank: int, seed: int) -> Start:
    """Return MLlib's start, in which rows depend on all ids of a block under hash placement.

    If the links have that placement, each block draws its own rows. Otherwise the ids are shuffled
    once to MLlib's blocks and the rows shuffled back, at 4 bytes and 4 times the rank for each id.
    """
    blocks = links.partitioner.num_blocks
    draw = partial(mllib_start, rank=rank, seed=seed, side=links.side, blocks=blocks)
    if links.partitioner == HashPartitioner(blocks):
        return Start(draw)
    ids = Shuffle(links.rdd.mapPartitions(partial(_ids_by_hash, blocks)), blocks)
    drawn = ids.rdd.mapPartitions(partial(_draw_rows, draw, links.partitioner))
    rows = Shuffle(drawn, links.partitions)
    return Start(partial(_refuse_ids, rank), without_block_numbers(rows), (ids, rows))


def start_from(table: FactorTable, links: Links, make: RowFactory) -> Start:
    """Return a start from a table's rows, for any partitioner; `make` gives the other rows.

    If both partitioners are equal, the rows are read without a shuffle.
    """
    alike = table.partitioner == links.partitioner
    if alike and table.blocks.getNumPartitions() == links.partitions:
        return Start(make, with_shuffle_serializer(table.blocks))
    moved = Shuffle(
        table.blocks.mapPartitions(partial(_move_rows, links.partitioner)), links.partitions
    )
    return Start(make, without_block_numbers(moved), (moved,))


def _refuse_ids(rank: int, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Raise for any id: a block cannot draw rows of another placement."""
    if len(ids):
        raise InconsistentRatingsError(f"Id {ids[0]} has no starting row. {REMEDY}")
    return np.empty((0, rank), dtype=np.float32)


@spark_task
def _ids_by_hash(
    blocks: int, link_blocks: Iterable[LinkBlock]
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    for link_block in link_blocks:
        ids = link_block.in_block.ids
        for block, (block_ids,) in split_by_block(HashPartitioner(blocks).block_of(ids), ids):
            yield block, block_ids


@spark_task
def _draw_rows(
    draw: RowFactory, partitioner: Partitioner, pieces: Iterable[tuple[int, NDArray[np.int32]]]
) -> Iterator[tuple[int, FactorBlock]]:
    parts = [ids for _, ids in pieces]
    if parts:
        ids = np.sort(np.concatenate(parts))
        for block, columns in split_by_block(partitioner.block_of(ids), ids, draw(ids)):
            yield block, FactorBlock(*columns)


@spark_task
def _move_rows(
    partitioner: Partitioner, factor_blocks: Iterable[FactorBlock]
) -> Iterator[tuple[int, FactorBlock]]:
    for factors in factor_blocks:
        # A partitioner fitted to the new ratings may not place every id of the old ratings.
        for block, columns in split_by_block(
            find_blocks(partitioner, factors.ids), factors.ids, factors.rows
        ):
            yield block, FactorBlock(*columns)
