"""Factor blocks as RDDs: looking rows up, and routing pairs to them."""

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

from partitioners import Partitioner
from rddals.blocks.factors import FactorBlock
from rddals.errors import RatingTypeError
from rddals.rdds.lifetimes import Shared, cut_lineage
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task

__all__ = [
    "FactorTable",
    "block_and_columns",
    "blocks_or_nowhere",
    "is_pair",
    "newest_rows",
    "predict_pairs",
    "split_by_block",
    "without_block_numbers",
]

#: Pairs that are turned into columns at a time.
PAIRS_PER_BATCH = 1 << 16
#: What has a first and a second element, as a set has not.
PAIR_TYPES = (tuple, list, np.ndarray)
#: The block of an id that a partitioner does not place.
NOWHERE = -1


class FactorTable(Shared):
    """The factors of one side: an RDD of `FactorBlock`, block b in partition b.

    Attributes
    ----------
    blocks : RDD of FactorBlock
    partitioner : Partitioner
        In which block an id lives.
    """

    def __init__(self, blocks: RDD[FactorBlock], partitioner: Partitioner) -> None:
        super().__init__(blocks)
        self.blocks = blocks
        self.partitioner = partitioner

    def row(self, id_: int) -> NDArray[np.float32] | None:
        """The factor of one id, from the one partition that can hold it; None if unknown."""
        found = self._find(np.array([id_], dtype=np.int64))
        return found.rows[0] if len(found.ids) else None

    def rows(self, ids: NDArray[Any]) -> NDArray[np.float32]:
        """The factors of some ids, at least one, that are all known; in their order."""
        found = self._find(ids)
        positions, _ = found.find(ids)
        return found.rows[positions]

    def _find(self, ids: NDArray[Any]) -> FactorBlock:
        blocks = np.unique(blocks_or_nowhere(self.partitioner, ids))
        blocks = blocks[blocks != NOWHERE].tolist()
        sc = self.blocks.context
        found = sc.runJob(self.blocks, partial(_rows_of, ids), blocks) if blocks else []
        return FactorBlock.merged(found, found[0].rows.shape[1] if found else 0)

    def pairs(self) -> RDD[tuple[int, Any]]:
        """``(id, array('d'))`` of every id, where the partitioner says."""
        pairs = self.blocks.mapPartitions(_as_pairs)
        placement = _Placement(self.partitioner)
        pairs.partitioner = SparkPartitioner(self.blocks.getNumPartitions(), placement)
        return pairs

    def ids(self) -> NDArray[np.int32]:
        """All ids on the driver, ascending."""
        parts = self.blocks.mapPartitions(_ids).collect()
        return np.sort(np.concatenate([np.empty(0, np.int32), *parts]))

    def bounds(self) -> tuple[int, int]:
        """The least and the greatest id."""
        parts = self.blocks.mapPartitions(_bounds).collect()
        return min(low for low, _ in parts), max(high for _, high in parts)

    def mean(self, rank: int) -> NDArray[np.float32]:
        """The mean of all rows, zeros if there is none; shape (rank,)."""
        parts = self.blocks.mapPartitions(_sums).collect()
        total = np.sum([sums for sums, _ in parts], axis=0, initial=0.0) + np.zeros(rank)
        mean: NDArray[np.float32] = (total / max(1, sum(n for _, n in parts))).astype(np.float32)
        return mean

    def collect(self, rank: int) -> FactorBlock:
        """All factors on the driver, ids ascending."""
        return FactorBlock.merged(self.blocks.collect(), rank)

    def updated(self, newer: RDD[FactorBlock]) -> FactorTable:
        """A table with the rows of `newer`, block by block, in place of these or added.

        It is computed at once and persisted, and does not depend on either any more.
        """
        blocks = newest_rows([self.blocks, newer])
        cut_lineage(blocks)
        return FactorTable(blocks, self.partitioner)

    @classmethod
    def from_rows(cls, rows: RDD[Any], partitioner: Partitioner, rank: int) -> FactorTable:
        """A table from an RDD of ``(id, features)``."""
        return cls.shuffled(rows, partitioner, rank)[0]

    @classmethod
    def shuffled(
        cls, rows: RDD[Any], partitioner: Partitioner, rank: int
    ) -> tuple[FactorTable, Shuffle]:
        """The same, and the shuffle that it is made from."""
        pieces = rows.mapPartitions(partial(_rows_by_block, partitioner, rank))
        shuffle = Shuffle(pieces, partitioner.num_blocks)
        blocks = shuffle.rdd.mapPartitions(partial(_merged, rank), preservesPartitioning=True)
        return cls(with_shuffle_serializer(blocks), partitioner), shuffle


class _Placement:
    """A partitioner as Spark's ``lookup`` wants it: a function of one key."""

    def __init__(self, partitioner: Partitioner) -> None:
        self.partitioner = partitioner

    def __call__(self, id_: int) -> int:
        return int(self.partitioner.block_of(np.array([id_], dtype=np.int64))[0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Placement) and self.partitioner == other.partitioner

    def __hash__(self) -> int:
        return hash(self.partitioner)


def predict_pairs(
    users: FactorTable,
    products: FactorTable,
    pairs: RDD[Any],
    default_rows: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> RDD[tuple[Any, Any, Any]]:
    """``(user ids, product ids, predictions)`` in columns.

    Pairs go to their user's block, pick up the user's row, and go on to their product's block.

    Parameters
    ----------
    users, products : FactorTable
    pairs : RDD of (int, int)
    strangers : pair of ndarray of float32, shape (rank,), optional
        Rows of users and of products that are not known. Pairs of such are left out otherwise.
    """
    of_user, of_product = default_rows or (None, None)
    nowhere = NOWHERE if default_rows is None else 0
    to_users = pairs.mapPartitions(partial(_pairs_by_block, users.partitioner, nowhere))
    partitions = users.blocks.getNumPartitions()
    at_users = co_partitioned(
        [with_shuffle_serializer(users.blocks), Shuffle(to_users, partitions).rdd]
    )
    to_products = at_users.mapPartitions(
        partial(_with_user_rows, products.partitioner, nowhere, of_user)
    )
    partitions = products.blocks.getNumPartitions()
    at_products = co_partitioned(
        [with_shuffle_serializer(products.blocks), Shuffle(to_products, partitions).rdd]
    )
    return at_products.mapPartitions(partial(_predictions, of_product))


def newest_rows(rdds: Sequence[RDD[FactorBlock]]) -> RDD[FactorBlock]:
    """Block by block the rows of some co-partitioned RDDs; of an id that several know, the last's.

    It computes them whenever it is read.
    """
    if len(rdds) == 1:
        return rdds[0]
    all_of_them = co_partitioned(map(with_shuffle_serializer, rdds))
    return with_shuffle_serializer(all_of_them.mapPartitions(_updated, preservesPartitioning=True))


@spark_task
def _updated(blocks: Iterable[FactorBlock]) -> Iterator[FactorBlock]:
    """The blocks of one partition as one; of an id that is in several, the last one's row."""
    blocks = list(blocks)  # in the order of the RDDs that were united
    if not blocks:
        return
    ids = np.concatenate([block.ids for block in blocks])
    rows = np.concatenate([block.rows for block in blocks])
    distinct, last = np.unique(ids[::-1], return_index=True)
    yield FactorBlock(distinct, rows[::-1][last])


@spark_task
def _ids(blocks: Iterable[FactorBlock]) -> Iterator[NDArray[np.int32]]:
    return (block.ids for block in blocks)


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
    """Factor blocks that were shuffled as ``(block, factors)``, without the number."""
    blocks = numbered.rdd.mapPartitions(_without_number, preservesPartitioning=True)
    return with_shuffle_serializer(blocks)


@spark_task
def _without_number(numbered: Iterable[tuple[int, FactorBlock]]) -> Iterator[FactorBlock]:
    return (factors for _, factors in numbered)


def blocks_or_nowhere(
    partitioner: Partitioner, ids: NDArray[Any], nowhere: int = NOWHERE
) -> NDArray[np.int32]:
    """Blocks of `ids`, which need not be known; `nowhere` where there is none.

    A user's own partitioner may know the ids of the training alone, and so does the model.
    """
    try:
        return partitioner.block_of(ids)
    except Exception:
        if len(ids) <= 1:
            return np.full(len(ids), nowhere, dtype=np.int32)
    distinct, inverse = np.unique(ids, return_inverse=True)
    return np.concatenate(
        [blocks_or_nowhere(partitioner, id_, nowhere) for id_ in distinct[:, None]]
    )[inverse]


def split_by_block(
    blocks: NDArray[np.int32], *columns: NDArray[Any]
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    """Columns split by block number, their order kept; `NOWHERE` is left out."""
    order = np.argsort(blocks, kind="stable")
    for block, rows in zip(*_runs(blocks[order], order), strict=True):
        if block != NOWHERE:
            yield block, tuple(column[rows] for column in columns)


def _runs(ascending: NDArray[np.int32], order: NDArray[np.intp]) -> tuple[list[int], list[Any]]:
    values, starts = np.unique(ascending, return_index=True)
    return values.tolist(), np.split(order, starts[1:]) if len(values) else []


@spark_task
def _rows_by_block(
    partitioner: Partitioner, rank: int, rows: Iterable[Any]
) -> Iterator[tuple[int, FactorBlock]]:
    rows = iter(rows)
    while batch := list(islice(rows, PAIRS_PER_BATCH)):
        ids = np.array([id_ for id_, _ in batch], dtype=np.int32)
        factors = np.array([features for _, features in batch], dtype=np.float32)
        for block, columns in split_by_block(partitioner.block_of(ids), ids, factors):
            yield block, FactorBlock(*columns)


@spark_task
def _merged(rank: int, pieces: Iterable[tuple[int, FactorBlock]]) -> Iterator[FactorBlock]:
    yield FactorBlock.merged((block for _, block in pieces), rank)


@spark_task
def _pairs_by_block(
    partitioner: Partitioner, nowhere: int, pairs: Iterable[Any]
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    pairs = iter(pairs)
    while batch := list(islice(pairs, PAIRS_PER_BATCH)):
        try:
            if not all(issubclass(kind, PAIR_TYPES) for kind in set(map(type, batch))):
                raise TypeError
            ids = np.array([(int(user), int(product)) for user, product in batch], dtype=np.int64)
        except (TypeError, ValueError, OverflowError):
            raise RatingTypeError(
                f"{next(pair for pair in batch if not is_pair(pair))!r} is not a pair of ids; "
                "predict for an RDD of (user, product)."
            ) from None
        users, products = ids[:, 0], ids[:, 1]
        yield from split_by_block(blocks_or_nowhere(partitioner, users, nowhere), users, products)


def is_pair(pair: Any) -> bool:
    """Whether `pair` can be taken as a user's and a product's id."""
    if not isinstance(pair, PAIR_TYPES):
        return False
    try:
        user, product = pair
        np.array([int(user), int(product)], dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def block_and_columns(
    records: Iterable[Any],
) -> tuple[FactorBlock | None, list[tuple[NDArray[Any], ...]]]:
    """A partition's factor block, and the columns that were sent there."""
    block, columns = None, []
    for record in records:
        if isinstance(record, FactorBlock):
            block = record
        else:
            columns.append(record[1])
    return block, columns


@spark_task
def _with_user_rows(
    partitioner: Partitioner,
    nowhere: int,
    default_row: NDArray[np.float32] | None,
    records: Iterable[Any],
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    block, batches = block_and_columns(records)
    if block is None:
        return
    for users, products in batches:
        found, rows = _rows_or_default(block, users, default_row)
        blocks = blocks_or_nowhere(partitioner, products[found], nowhere)
        yield from split_by_block(blocks, users[found], products[found], rows)


def _rows_or_default(
    block: FactorBlock, ids: NDArray[Any], default_row: NDArray[np.float32] | None
) -> tuple[Any, NDArray[np.float32]]:
    """Which of `ids` have a row, and the rows; all have one if there is one for strangers."""
    positions, found = block.find(ids)
    if default_row is None:
        return found, block.rows[positions[found]]
    rows = np.repeat(default_row[None, :], len(ids), axis=0)
    rows[found] = block.rows[positions[found]]
    return slice(None), rows


@spark_task
def _predictions(
    default_row: NDArray[np.float32] | None, records: Iterable[Any]
) -> Iterator[tuple[Any, Any, Any]]:
    block, batches = block_and_columns(records)
    if block is None:
        return
    for users, products, user_rows in batches:
        found, rows = _rows_or_default(block, products, default_row)
        predictions = np.einsum("ij,ij->i", user_rows[found], rows, dtype=np.float64)
        yield users[found], products[found], predictions
