"""Factor blocks as RDDs: reading rows, and sending pairs to the blocks of their ids."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.rdd import Partitioner as SparkPartitioner

from partitioners import (
    DegreeBalancedPartitioner,
    HashPartitioner,
    LocalityPartitioner,
    Partitioner,
    RangePartitioner,
)
from rddals.blocks.checked_blocks import sample_of
from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock
from rddals.rdds.lifetimes import Shared
from rddals.rdds.shuffles import Shuffle, co_partitioned, map_blocks, with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task

#: Pairs converted to columns at a time.
PAIRS_PER_BATCH = 1 << 16
#: Partitioners that place ids alike in every process.
SAME_EVERYWHERE = (
    HashPartitioner,
    RangePartitioner,
    DegreeBalancedPartitioner,
    LocalityPartitioner,
)
#: Block number of an id that the partitioner does not place.
NO_BLOCK = -1


class FactorTable(Shared):
    """The factors of one side: an RDD of `FactorBlock`, block b in partition b.

    Attributes
    ----------
    blocks : RDD of FactorBlock
    partitioner : Partitioner
        Maps each id to its block.
    """

    def __init__(self, blocks: RDD[FactorBlock], partitioner: Partitioner) -> None:
        super().__init__(blocks)
        self.blocks = blocks
        self.partitioner = partitioner

    def row(self, id_: int) -> NDArray[np.float32] | None:
        """Return the factor of one id, or None if the id is unknown.

        The job reads only the partition that can hold it.
        """
        factors = self._find(np.array([id_], dtype=np.int64))
        return factors.rows[0] if len(factors.ids) else None

    def rows(self, ids: NDArray[Any]) -> NDArray[np.float32]:
        """Return the factors of one or more known ids, in the order of `ids`."""
        factors = self._find(ids)
        positions, _ = factors.find(ids)
        return factors.rows[positions]

    def _find(self, ids: NDArray[Any]) -> FactorBlock:
        """Return the factors of the known ids, from only the partitions that can hold them."""
        try:
            blocks = np.unique(self.partitioner.block_of(ids)).tolist()
        except Exception:
            blocks = []  # a caller's partitioner may fail for ids without ratings
        sc = self.blocks.context
        parts = sc.runJob(self.blocks, partial(_rows_of, ids), blocks) if blocks else []
        is_missing = sum(len(part.ids) for part in parts) < len(np.unique(ids))
        if is_missing and type(self.partitioner) not in SAME_EVERYWHERE:
            # A caller's placement may fail, or be another one, on the driver. The data decides.
            parts = self.blocks.mapPartitions(partial(_rows_of, ids)).collect()
        return FactorBlock.merged(parts, parts[0].rows.shape[1] if parts else 0)

    def pairs(self) -> RDD[tuple[int, Any]]:
        """Return an RDD of ``(id, array('d'))``, partitioned by `partitioner`.

        ``mapPartitions`` drops an RDD's partitioner, and ``lookup`` then reads every partition. So
        the partitioner is set again.
        """
        pairs = self.blocks.mapPartitions(_as_pairs)
        placement = _Placement(self.partitioner)
        pairs.partitioner = SparkPartitioner(self.blocks.getNumPartitions(), placement)
        return pairs

    def count(self) -> int:
        """Return the number of ids."""
        return int(self.blocks.mapPartitions(_lengths).sum())

    def bounds(self) -> tuple[int, int]:
        """Return the smallest and the largest id."""
        parts = self.blocks.mapPartitions(_bounds).collect()
        return min(low for low, _ in parts), max(high for _, high in parts)

    def mean(self, rank: int) -> NDArray[np.float32]:
        """Return the mean of all rows, zeros if the table is empty; shape (rank,)."""
        parts = self.blocks.mapPartitions(_sums).collect()
        total = np.sum([sums for sums, _ in parts], axis=0, initial=0.0) + np.zeros(rank)
        return (total / max(1, sum(n for _, n in parts))).astype(np.float32)

    def collect(self, rank: int) -> FactorBlock:
        """Return all factors on the driver, ids in ascending order."""
        return FactorBlock.merged(self.blocks.collect(), rank)

    @classmethod
    def from_rows(cls, rows: RDD[Any], partitioner: Partitioner, rank: int) -> FactorTable:
        """Build a table from an RDD of ``(id, features)``."""
        return cls.shuffled(rows, partitioner, rank)[0]

    @classmethod
    def shuffled(
        cls, rows: RDD[Any], partitioner: Partitioner, rank: int
    ) -> tuple[FactorTable, Shuffle]:
        """Build a table from an RDD of ``(id, features)``; return it with its shuffle."""
        pieces = rows.mapPartitions(partial(rows_by_block, partitioner, rank))
        shuffle = Shuffle(pieces, partitioner.num_blocks)
        return cls(map_blocks(shuffle.rdd, partial(_merged, rank)), partitioner), shuffle


class _Placement:
    """A partitioner as a partition function of one key, which Spark's ``lookup`` calls.

    Spark compares RDDs' partition functions, so equal partitioners give equal ones.
    """

    def __init__(self, partitioner: Partitioner) -> None:
        self.partitioner = partitioner

    def __call__(self, id_: int) -> int:
        return int(self.partitioner.block_of(np.array([id_], dtype=np.int64))[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Placement) and self.partitioner == other.partitioner

    def __hash__(self) -> int:
        return hash(self.partitioner)


def newest_rows(rdds: Sequence[RDD[FactorBlock]]) -> RDD[FactorBlock]:
    """Merge co-partitioned RDDs block by block; for an id in several, the last row is used.

    The result is not persisted.
    """
    if len(rdds) == 1:
        return rdds[0]
    return map_blocks(co_partitioned(map(with_shuffle_serializer, rdds)), _updated)


@spark_task
def _updated(blocks: Iterable[FactorBlock]) -> Iterator[FactorBlock]:
    """Merge the blocks of one partition; for an id in several, the last row is used."""
    blocks = list(blocks)  # in the order of the united RDDs
    if not blocks:
        return
    ids = np.concatenate([block.ids for block in blocks])
    rows = np.concatenate([block.rows for block in blocks])
    distinct, last = np.unique(ids[::-1], return_index=True)
    yield FactorBlock(distinct, rows[::-1][last])


def ids_of(blocks: RDD[Any]) -> NDArray[np.int32]:
    """Return all ids of factor blocks or link blocks on the driver, in ascending order."""
    parts = blocks.mapPartitions(_ids).collect()
    return np.sort(np.concatenate([np.empty(0, np.int32), *parts]))


def sample_ids(blocks: RDD[FactorBlock]) -> list[tuple[int, NDArray[np.int32]]]:
    """Return the number of each factor block, and some of its ids."""
    return blocks.mapPartitionsWithIndex(_sample).collect()


@spark_task
def _sample(
    partition: int, blocks: Iterable[FactorBlock]
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    return ((partition, sample_of(block.ids)) for block in blocks)


@spark_task
def _ids(blocks: Iterable[FactorBlock | LinkBlock]) -> Iterator[NDArray[np.int32]]:
    return (block.ids for block in blocks)


@spark_task
def _lengths(blocks: Iterable[FactorBlock]) -> Iterator[int]:
    return (len(block.ids) for block in blocks)


@spark_task
def _bounds(blocks: Iterable[FactorBlock]) -> Iterator[tuple[int, int]]:
    return ((int(block.ids[0]), int(block.ids[-1])) for block in blocks if len(block.ids))


@spark_task
def _sums(blocks: Iterable[FactorBlock]) -> Iterator[tuple[NDArray[np.float64], int]]:
    return ((block.rows.sum(axis=0, dtype=np.float64), len(block.ids)) for block in blocks)


@spark_task
def _rows_of(ids: NDArray[Any], blocks: Iterable[FactorBlock]) -> list[FactorBlock]:
    return [block.only(ids) for block in blocks]


@spark_task
def _as_pairs(blocks: Iterable[FactorBlock]) -> Iterator[tuple[int, Any]]:
    for block in blocks:
        for id_, row in zip(block.ids.tolist(), block.rows.tolist(), strict=True):
            yield id_, array("d", row)


def without_block_numbers(numbered: Shuffle) -> RDD[FactorBlock]:
    """Return the factor blocks of shuffled ``(block, factors)`` pairs."""
    return map_blocks(numbered.rdd, _without_number)


@spark_task
def _without_number(numbered: Iterable[tuple[int, FactorBlock]]) -> Iterator[FactorBlock]:
    return (factors for _, factors in numbered)


def find_blocks(
    partitioner: Partitioner, ids: NDArray[Any], missing: int = NO_BLOCK
) -> NDArray[np.int32]:
    """Return the block of each id, or `missing` for ids that the partitioner does not place.

    A caller's own partitioner may fail for ids outside the training ratings. Then each id is tried
    separately.
    """
    try:
        return partitioner.block_of(ids)
    except Exception:
        if len(ids) <= 1:
            return np.full(len(ids), missing, dtype=np.int32)
    distinct, inverse = np.unique(ids, return_inverse=True)
    return np.concatenate([find_blocks(partitioner, id_, missing) for id_ in distinct[:, None]])[
        inverse
    ]


def split_by_block(
    blocks: NDArray[np.int32], *columns: NDArray[Any]
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    """Split columns by block number, in stable order; leave out `NO_BLOCK`."""
    order = np.argsort(blocks, kind="stable")
    for block, rows in zip(*_runs(blocks[order], order), strict=True):
        if block != NO_BLOCK:
            yield block, tuple(column[rows] for column in columns)


def _runs(ascending: NDArray[np.int32], order: NDArray[np.intp]) -> tuple[list[int], list[Any]]:
    values, starts = np.unique(ascending, return_index=True)
    return values.tolist(), np.split(order, starts[1:]) if len(values) else []


@spark_task
def rows_by_block(
    partitioner: Partitioner, rank: int, rows: Iterable[Any]
) -> Iterator[tuple[int, FactorBlock]]:
    """Convert ``(id, features)`` pairs to columns and split them by block."""
    rows = iter(rows)
    while batch := list(islice(rows, PAIRS_PER_BATCH)):
        ids = np.array([id_ for id_, _ in batch], dtype=np.int32)
        factors = np.array([features for _, features in batch], dtype=np.float32)
        for block, columns in split_by_block(partitioner.block_of(ids), ids, factors):
            yield block, FactorBlock(*columns)


@spark_task
def _merged(rank: int, pieces: Iterable[tuple[int, FactorBlock]]) -> Iterator[FactorBlock]:
    yield FactorBlock.merged((block for _, block in pieces), rank)


def block_and_columns(
    records: Iterable[Any],
) -> tuple[FactorBlock | None, list[tuple[NDArray[Any], ...]]]:
    """Return a partition's factor block, and the columns that were sent to it."""
    block, columns = None, []
    for record in records:
        if isinstance(record, FactorBlock):
            block = record
        else:
            columns.append(record[1])
    return block, columns
