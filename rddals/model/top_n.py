"""The ids of a factor table that score highest, for one query or for every row of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, Broadcast

from rddals.blocks.factors import FactorBlock
from rddals.errors import RddalsError
from rddals.kernels.items import Excluded, ItemIndex
from rddals.kernels.topk import top_k
from rddals.model.query import TopNQuery
from rddals.rdds.factors import FactorTable, block_and_columns, blocks_or_nowhere, split_by_block
from rddals.rdds.ingest import read_batches
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

__all__ = ["seen_pairs", "top_n", "top_n_for_all"]


def top_n(
    table: FactorTable,
    query: NDArray[np.float32],
    asked: TopNQuery,
    *,
    unit: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The ids with the highest scores for one query, best first, and their scores.

    Parameters
    ----------
    table : FactorTable
    query : ndarray of float32, shape (rank,)
    asked : Asked
    unit : bool
        Scale the rows of the table to length 1.
    """
    task = partial(_top_n_of_blocks, query, asked, unit)
    found = table.blocks.mapPartitions(task).collect()
    ids = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in found)])
    scores = np.concatenate([np.empty(0), *(scores for _, scores in found)])
    order = np.lexsort((ids, -scores))[: asked.num]
    return ids[order], scores[order]


def seen_pairs(source: RDD[Any], side: int, table: FactorTable) -> Shuffle:
    """Pairs ``(ids, others)`` of ratings, in the blocks where the table has the ids.

    The ratings are read at once, so that one that cannot be read is told of now.

    Parameters
    ----------
    source : RDD
        As `rddals.rdds.ingest.rating_source` gives it.
    side : int
        0 if the table holds users, 1 if products.
    table : FactorTable
    """
    task_reports = TaskReports(source.context)
    pieces = source.mapPartitionsWithIndex(
        partial(_pairs_by_block, side, table.partitioner, task_reports)
    )
    shuffle = Shuffle(pieces, table.blocks.getNumPartitions())
    try:
        shuffle.write()
        for error in task_reports.take("error"):
            raise error
    except BaseException:
        shuffle.release()
        raise
    finally:
        task_reports.close()
    return shuffle


def top_n_for_all(
    table: FactorTable,
    items: Broadcast[FactorBlock],
    asked: TopNQuery,
    as_answer: Callable[[int, list[int], list[float]], Any],
    *,
    seen: Shuffle | None,
) -> RDD[tuple[int, Any]]:
    """For every id of a table the items with the highest scores.

    Parameters
    ----------
    table : FactorTable
    items : Broadcast of FactorBlock
    asked : Asked
        Of the items.
    as_answer : callable
        Makes the answer of an id, its best items and their scores.
    seen : Shuffle, optional
        Pairs that are left out, as `seen_pairs` gives them.
    """
    task = partial(_top_n_for_blocks, items, asked, as_answer)
    records: RDD[Any] = table.blocks
    if seen is not None:
        records = co_partitioned([with_shuffle_serializer(table.blocks), seen.rdd])
    return records.mapPartitions(task, preservesPartitioning=True)


def _wanted(block: FactorBlock, asked: TopNQuery) -> FactorBlock:
    wanted = block if asked.candidates is None else block.only(asked.candidates)
    return wanted.without(asked.excluded) if len(asked.excluded) else wanted


@spark_task
def _top_n_of_blocks(
    query: NDArray[np.float32],
    asked: TopNQuery,
    unit: bool,
    blocks: Iterable[FactorBlock],
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    for block in blocks:
        wanted = _wanted(block, asked)
        if unit:
            wanted = wanted.unit()
        ids, scores = top_k(query[None, :], ItemIndex.build(wanted.ids, wanted.rows), asked.num)
        yield ids[0], scores[0]


@spark_task
def _pairs_by_block(
    side: int, partitioner: Any, task_reports: TaskReports, partition: int, elements: Iterable[Any]
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    try:
        for batch in read_batches(partition, elements):
            pair = (batch.users, batch.products)
            own, other = pair if side == 0 else pair[::-1]
            yield from split_by_block(blocks_or_nowhere(partitioner, own), own, other)
    except RddalsError as error:
        task_reports.add("error", partition, error)


@spark_task
def _top_n_for_blocks(
    items: Broadcast[FactorBlock],
    asked: TopNQuery,
    as_answer: Callable[[int, list[int], list[float]], Any],
    records: Iterable[Any],
) -> Iterator[tuple[int, Any]]:
    block, seen = block_and_columns(records)
    if block is None:
        return
    wanted = _wanted(items.value, asked)
    index = ItemIndex.build(wanted.ids, wanted.rows)
    excluded = None
    if seen:
        ids, others = (np.concatenate(columns) for columns in zip(*seen, strict=True))
        positions, found = block.find(ids)
        excluded = Excluded.of(positions[found], others[found], index)
    best_ids, scores = top_k(block.rows, index, asked.num, excluded=excluded)
    left = np.isfinite(scores).sum(axis=1).tolist()
    for id_, own, values, count in zip(
        block.ids.tolist(), best_ids.tolist(), scores.tolist(), left, strict=True
    ):
        yield id_, as_answer(id_, own[:count], values[:count])
