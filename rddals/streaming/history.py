"""Stored ratings of a stream, by user and by product, and the links of a batch with them.

A batch's users and products are solved from all their ratings, so they also need rows of ids that
have no rating in the batch. Once all blocks know which ids the batch touches, each block derives
from its own ratings what it solves and what it sends, as in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.links import LinkBlock
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.rdds.factors import ids_of
from rddals.rdds.lifetimes import cut_lineage, materialise, storage_level, undo_on_failure
from rddals.rdds.links import LinkedRatings, Links, LinkSummary, one_per_block
from rddals.rdds.shuffles import co_partitioned, map_blocks, with_shuffle_serializer
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task
from rddals.streaming.incremental_links import IncrementalBlock, Touched, incremental_block
from rddals.streaming.levels import Levels


def all_ratings(rdds: Sequence[RDD[RatingBlock]]) -> RDD[RatingBlock]:
    """Concatenate co-partitioned RDDs block by block; computed again on every read."""
    if len(rdds) == 1:
        return rdds[0]
    return map_blocks(co_partitioned(rdds), _concatenated)


def extended_history(
    history: tuple[Levels, Levels], links: LinkedRatings, ratings: int
) -> tuple[Levels, Levels]:
    """Add a batch's ratings to the history; `ratings` is the new total."""
    sides: list[Levels] = []
    with undo_on_failure() as undo:
        for side, side_links in enumerate((links.users, links.products)):
            newer = map_blocks(side_links.rdd, partial(_ratings_of, side))
            cut_lineage(newer)
            count = sum(summary.ratings for summary in side_links.summaries)
            sides.append(history[side].with_level(newer, count, ratings))
            undo.callback(sides[-1].discard)
    return sides[USERS], sides[PRODUCTS]


def incremental_links(history: tuple[Levels, Levels], batch: LinkedRatings | None) -> LinkedRatings:
    """Build the links of the ids that a batch touches, from all their ratings.

    `history` has the ratings before the batch. Without a batch, all ids are linked.
    """
    touched: Touched | None = None
    if batch is not None:
        touched = ids_of(batch.users.rdd), ids_of(batch.products.rdd)
    partitioners = (history[USERS].partitioner, history[PRODUCTS].partitioner)
    created: list[Links] = []
    with undo_on_failure() as undo, ExitStack() as stack:
        for side in (USERS, PRODUCTS):
            records: list[RDD[Any]] = [*history[side].rdds]
            if batch is not None:
                records.append((batch.users, batch.products)[side].rdd)
            sc = records[0].context
            task_reports = stack.enter_context(closing(TaskReports(sc)))
            rdd = with_shuffle_serializer(
                co_partitioned(records).mapPartitionsWithIndex(
                    partial(_incremental_block, side, partitioners, touched, task_reports),
                    preservesPartitioning=True,
                )
            ).persist(storage_level(sc))
            undo.callback(rdd.unpersist)
            materialise(rdd)
            summaries = one_per_block(task_reports.take(side), partitioners[side])
            created.append(Links(side, partitioners[side], rdd, summaries))
    return LinkedRatings(created[USERS], created[PRODUCTS])


@spark_task
def _concatenated(blocks: Iterable[RatingBlock]) -> Iterator[RatingBlock]:
    yield RatingBlock.concatenate(list(blocks))


@spark_task
def _ratings_of(side: int, blocks: Iterable[LinkBlock]) -> Iterator[RatingBlock]:
    return (_linked_ratings(side, block) for block in blocks)


def _linked_ratings(side: int, block: LinkBlock) -> RatingBlock:
    """Return the ratings that a block was linked from, in the order of its links."""
    in_block = block.in_block
    own = np.repeat(in_block.ids[in_block.order], in_block.degrees)
    others = in_block.source_ids[in_block.sources]
    users, products = (own, others) if side == USERS else (others, own)
    return RatingBlock(users, products, in_block.ratings)


@spark_task
def _incremental_block(
    side: int,
    partitioners: tuple[Partitioner, Partitioner],
    touched: Touched | None,
    task_reports: TaskReports,
    partition: int,
    records: Iterable[Any],
) -> Iterator[IncrementalBlock]:
    start = perf_counter()
    if partition >= partitioners[side].num_blocks:  # the other side has more blocks
        return
    ratings, batch = [], None
    for record in records:
        if isinstance(record, LinkBlock):
            batch = record.in_block
            ratings.append(_linked_ratings(side, record))
        else:
            ratings.append(record)
    own = RatingBlock.concatenate(ratings)
    block = incremental_block(partition, own, side, partitioners[1 - side], touched, batch)
    task_reports.add(side, partition, LinkSummary.of(block, perf_counter() - start))
    yield block
