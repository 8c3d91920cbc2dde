"""All rows to everyone, through the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pyspark import RDD, Broadcast, SparkContext

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock
from rddals.exchange.base import (
    NO_ROWS,
    BlockTask,
    Delivery,
    Exchange,
    OwnRows,
    Rows,
    Step,
    StepResult,
    collect_reports,
)
from rddals.exchange.side_rows import SideRows
from rddals.rdds.factors import without_block_numbers
from rddals.rdds.lifetimes import cut_lineage
from rddals.rdds.links import Links
from rddals.rdds.shuffles import Shuffle, co_partitioned
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

__all__ = ["BroadcastExchange"]


class BroadcastRows(Delivery):
    """The rows of one side on every executor."""

    def __init__(self, sc: SparkContext, blocks: list[FactorBlock]) -> None:
        self.broadcast: Broadcast[SideRows] = sc.broadcast(SideRows.of(blocks))
        self.broadcast_id = int(self.broadcast._jbroadcast.id())

    def release(self) -> None:
        self.broadcast.destroy()


class BroadcastExchange(Exchange):
    """Collects the new rows on the driver and broadcasts them."""

    name = "broadcast"

    def run_step(
        self,
        links: Links,
        other: Links,
        delivery: Delivery | None,
        step: Step,
        *,
        own_rows: OwnRows = NO_ROWS,
        send: bool,
        keep: bool,
    ) -> StepResult:
        assert delivery is None or isinstance(delivery, BroadcastRows)
        sc = links.rdd.context
        task_reports = TaskReports(sc)
        records: RDD[Any] = co_partitioned([links.rdd, *own_rows.rdds])
        try:
            broadcast = None if delivery is None else delivery.broadcast
            task = _BroadcastTask(
                BlockTask(links, step, task_reports), broadcast, send=send, keep=keep
            )
            solved = sorted(records.mapPartitions(task).collect(), key=lambda made: made[0])
            reports = collect_reports(task_reports, links)
        finally:
            task_reports.close()
            own_rows.release()
        factors = None
        if keep:
            factors = _placed(sc, [kept for _, kept, _ in solved], links.partitions)
        if delivery is not None:
            delivery.release()
        sent = [sent for _, _, sent in solved]
        return StepResult(BroadcastRows(sc, sent) if send else None, factors, reports)


class _BroadcastTask:
    """One block's task: rows out of the broadcast; factors out."""

    def __init__(
        self,
        block_task: BlockTask,
        broadcast: Broadcast[SideRows] | None,
        *,
        send: bool,
        keep: bool,
    ) -> None:
        self.block_task = block_task
        self.broadcast = broadcast
        self.send = send
        self.keep = keep

    @spark_task
    def __call__(
        self, records: Iterable[Any]
    ) -> Iterator[tuple[int, FactorBlock | None, FactorBlock | None]]:
        """The block, and its rows to keep and to send."""
        received = self.block_task.receive(records)
        if received is None:
            return
        link_block = received.link_block

        def deliver() -> tuple[LinkBlock, Rows | None]:
            if self.broadcast is None:
                return link_block, None
            return link_block, self.broadcast.value.needed_by(link_block.in_block)

        for kept, sent in self.block_task.solve(received, deliver):
            yield link_block.block, kept if self.keep else None, sent if self.send else None


def _placed(sc: SparkContext, blocks: list[FactorBlock], partitions: int) -> RDD[FactorBlock]:
    """Factor blocks that the driver holds, each in the partition of its number."""
    numbered = sc.parallelize(list(enumerate(blocks)), max(1, min(partitions, len(blocks))))
    shuffle = Shuffle(numbered, partitions)
    try:
        factors = without_block_numbers(shuffle)
        cut_lineage(factors)
    finally:
        shuffle.release()
    return factors
