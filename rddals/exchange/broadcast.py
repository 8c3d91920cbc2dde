"""All rows to everyone, through the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from pyspark import RDD, Broadcast, SparkContext

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import InBlock
from rddals.errors import InconsistentRatingsError
from rddals.exchange.base import (
    Advance,
    BlockTask,
    Brought,
    Delivery,
    Exchange,
    Rows,
    Step,
    brought_rows,
    collect_reports,
)
from rddals.rdds.links import REMEDY, Links
from rddals.rdds.spark import ReportBook, Shuffle, co_partitioned, cut_lineage, spared

__all__ = ["BroadcastExchange"]


class BroadcastRows(Delivery):
    """The rows of one side, block by block, on every executor."""

    def __init__(self, sc: SparkContext, blocks: list[FactorBlock]) -> None:
        self.broadcast: Broadcast[list[FactorBlock]] = sc.broadcast(blocks)
        self.broadcast_id = int(self.broadcast._jbroadcast.id())

    def release(self) -> None:
        self.broadcast.destroy()


class BroadcastExchange(Exchange):
    """Collects the new rows on the driver and broadcasts them."""

    name = "broadcast"

    def advance(
        self,
        links: Links,
        other: Links,
        delivery: Delivery | None,
        step: Step,
        *,
        send: bool,
        keep: bool,
    ) -> Advance:
        assert delivery is None or isinstance(delivery, (BroadcastRows, Brought))
        sc = links.rdd.context
        book = ReportBook(sc)
        records: RDD[Any] = links.rdd
        if isinstance(delivery, Brought):
            records = co_partitioned([links.rdd, delivery.rdd])
        try:
            broadcast = delivery.broadcast if isinstance(delivery, BroadcastRows) else None
            task = _BroadcastTask(BlockTask(links, step, book), broadcast)
            solved = dict(records.mapPartitions(task).collect())
            reports = collect_reports(book, links)
        finally:
            book.close()
        blocks = [solved[block] for block in sorted(solved)]
        factors = _placed(sc, blocks, links.partitions) if keep else None
        if delivery is not None:
            delivery.release()
        return Advance(BroadcastRows(sc, blocks) if send else None, factors, reports)


class _BroadcastTask:
    """One block's task: rows out of the broadcast; factors out."""

    def __init__(
        self, block_task: BlockTask, broadcast: Broadcast[list[FactorBlock]] | None
    ) -> None:
        self.block_task = block_task
        self.broadcast = broadcast

    @spared
    def __call__(self, records: Iterable[Any]) -> Iterator[tuple[int, FactorBlock]]:
        link_block, received, seconds = self.block_task.receive(records)
        if link_block is None:  # a partition past the last block of this side
            return

        def deliver() -> tuple[InBlock, Any]:
            in_block = link_block.in_block
            if self.broadcast is None:
                return in_block, brought_rows(received)
            return in_block, needed_rows(in_block, self.broadcast.value)

        for factors in self.block_task.solve(link_block, deliver, seconds):
            yield link_block.block, factors


def needed_rows(in_block: InBlock, blocks: list[FactorBlock]) -> Rows:
    """The rows that `in_block` needs, in canonical order, out of all there are."""
    parts = []
    first = 0
    for source, (block, count) in enumerate(
        zip(blocks, in_block.source_counts.tolist(), strict=True)
    ):
        wanted = in_block.source_ids[first : first + count]
        first += count
        if count == len(block.ids) and np.array_equal(wanted, block.ids):
            parts.append(block.rows)
            continue
        positions, found = block.find(wanted)
        if not found.all():
            raise InconsistentRatingsError(
                f"Source block {source} has no factor for id {int(wanted[np.argmin(found)])}. "
                f"{REMEDY}"
            )
        parts.append(block.rows.take(positions, axis=0))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _placed(sc: SparkContext, blocks: list[FactorBlock], partitions: int) -> RDD[FactorBlock]:
    """Factor blocks that the driver holds, each in the partition of its number."""
    numbered = sc.parallelize(list(enumerate(blocks)), max(1, min(partitions, len(blocks))))
    shuffle = Shuffle(numbered, partitions)
    try:
        factors = shuffle.rdd.mapPartitions(_without_number, preservesPartitioning=True)
        cut_lineage(factors)
    finally:
        shuffle.release()
    return factors


@spared
def _without_number(numbered: Iterable[tuple[int, FactorBlock]]) -> Iterator[FactorBlock]:
    return (block for _, block in numbered)
