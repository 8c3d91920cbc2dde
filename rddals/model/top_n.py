"""Highest-scoring ids of a factor table, for one query or for every row of another table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, Broadcast

from rddals.blocks.factors import FactorBlock
from rddals.errors import RddalsError
from rddals.kernels.items import Excluded, ItemIndex
from rddals.kernels.topk import top_k
from rddals.model.top_n_query import TopNQuery
from rddals.rdds.factors import FactorTable, block_and_columns, find_blocks, split_by_block
from rddals.rdds.ingest import read_batches
from rddals.rdds.lifetimes import undo_on_failure
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task


def top_n(
    table: FactorTable,
    row: NDArray[np.float32],
    query: TopNQuery,
    *,
    unit: bool = False,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the ids of a table with the highest scores for one factor row, and the scores.

    The best is first; equal scores are by ascending id. `unit` scales the rows of the table to
    length 1.
    """
    task = partial(_top_n_of_blocks, row, query, unit)
    results = table.blocks.mapPartitions(task).collect()
    ids = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in results)])
    scores = np.concatenate([np.empty(0), *(scores for _, scores in results)])
    order = np.lexsort((ids, -scores))[: query.num]
    return ids[order], scores[order]


def seen_pairs(source: RDD[Any], side: int, table: FactorTable) -> Shuffle:
    """Shuffle the ``(ids, others)`` pairs of ratings to the blocks of a table.

    `source` is from `rddals.rdds.ingest.rating_source`, and `side` is that of the table. The
    ratings are read in this call, so that an unreadable rating raises immediately.
    """
    with closing(TaskReports(source.context)) as task_reports, undo_on_failure() as undo:
        task = partial(_pairs_by_block, side, table.partitioner, task_reports)
        pieces = source.mapPartitionsWithIndex(task)
        shuffle = Shuffle(pieces, table.blocks.getNumPartitions())
        undo.callback(shuffle.release)
        shuffle.write()
        for error in task_reports.take("error"):
            raise error
    return shuffle


def top_n_for_all(
    table: FactorTable,
    items: Broadcast[FactorBlock],
    query: TopNQuery,
    as_rating: Callable[[int, int, float], Any],
    *,
    seen: Shuffle | None,
) -> RDD[tuple[int, tuple[Any, ...]]]:
    """Return the highest-scoring items for every id of a table, as ``(id, ratings)`` pairs.

    `as_rating` makes a rating of an id, an item and its score. `seen` are pairs to leave out, from
    `seen_pairs`.
    """
    task = partial(_top_n_for_blocks, items, query, as_rating)
    records: RDD[Any] = table.blocks
    if seen is not None:
        records = co_partitioned([with_shuffle_serializer(table.blocks), seen.rdd])
    return records.mapPartitions(task, preservesPartitioning=True)


def _eligible(block: FactorBlock, query: TopNQuery) -> FactorBlock:
    """Return the candidate rows of a block that are not excluded."""
    rows = block if query.candidates is None else block.only(query.candidates)
    return rows.without(query.excluded) if len(query.excluded) else rows


@spark_task
def _top_n_of_blocks(
    row: NDArray[np.float32],
    query: TopNQuery,
    unit: bool,
    blocks: Iterable[FactorBlock],
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    for block in blocks:
        items = _eligible(block, query)
        if unit:
            items = items.unit()
        ids, scores = top_k(row[None, :], ItemIndex.build(items.ids, items.rows), query.num)
        yield ids[0], scores[0]


@spark_task
def _pairs_by_block(
    side: int, partitioner: Any, task_reports: TaskReports, partition: int, elements: Iterable[Any]
) -> Iterator[tuple[int, tuple[NDArray[Any], ...]]]:
    try:
        for batch in read_batches(partition, elements):
            pair = (batch.users, batch.products)
            own, other = pair if side == 0 else pair[::-1]
            yield from split_by_block(find_blocks(partitioner, own), own, other)
    except RddalsError as error:
        task_reports.add("error", partition, error)


@spark_task
def _top_n_for_blocks(
    items: Broadcast[FactorBlock],
    query: TopNQuery,
    as_rating: Callable[[int, int, float], Any],
    records: Iterable[Any],
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    block, seen = block_and_columns(records)
    if block is None:
        return
    eligible = _eligible(items.value, query)
    index = ItemIndex.build(eligible.ids, eligible.rows)
    excluded = None
    if seen:
        ids, others = (np.concatenate(columns) for columns in zip(*seen, strict=True))
        positions, known = block.find(ids)
        excluded = Excluded.of(positions[known], others[known], index)
    best_ids, scores = top_k(block.rows, index, query.num, excluded=excluded)
    counts = np.isfinite(scores).sum(axis=1).tolist()
    for id_, best, values, count in zip(
        block.ids.tolist(), best_ids.tolist(), scores.tolist(), counts, strict=True
    ):
        yield id_, tuple(map(partial(as_rating, id_), best[:count], values[:count]))
