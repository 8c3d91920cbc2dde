"""Broadcast exchange: all rows go to every executor, through the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from pyspark import RDD, Broadcast, SparkContext

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock
from rddals.exchange.base import (
    BlockTask,
    Delivery,
    Exchange,
    HalfStep,
    Rows,
    StepResult,
    collect_reports,
)
from rddals.exchange.side_rows import SideRows
from rddals.rdds.factors import without_block_numbers
from rddals.rdds.lifetimes import cut_lineage, discard
from rddals.rdds.links import Links
from rddals.rdds.shuffles import Shuffle, co_partitioned
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task


class BroadcastRows(Delivery):
    """Rows of one side in a broadcast variable."""

    def __init__(self, sc: SparkContext, blocks: list[FactorBlock]) -> None:
        self.broadcast: Broadcast[SideRows] = sc.broadcast(SideRows.of(blocks))
        self.broadcast_id = int(self.broadcast._jbroadcast.id())

    def release(self) -> None:
        self.broadcast.destroy()


class BroadcastExchange(Exchange):
    """Broadcast exchange: collect the new rows on the driver and broadcast them."""

    name = "broadcast"

    def run_step(
        self, sides: tuple[Links, Links], delivery: Delivery | None, half_step: HalfStep
    ) -> StepResult:
        assert delivery is None or isinstance(delivery, BroadcastRows)
        links, own_rows = sides[half_step.side], half_step.own_rows
        send, keep = half_step.send, half_step.keep
        sc = links.rdd.context
        task_reports = TaskReports(sc)
        records: RDD[Any] = co_partitioned([links.rdd, *own_rows.rdds])
        try:
            broadcast = None if delivery is None else delivery.broadcast
            block_task = BlockTask(links, half_step.step, task_reports)
            task = partial(_run, block_task, broadcast, send, keep)
            solved = sorted(records.mapPartitions(task).collect(), key=lambda output: output[0])
            reports = collect_reports(task_reports, links)
        finally:
            task_reports.close()
            own_rows.release()
        factors = None
        if keep:
            factors = _distribute(sc, [kept for _, kept, _ in solved], links.partitions)
        try:
            new = BroadcastRows(sc, [sent for _, _, sent in solved]) if send else None
        except BaseException:
            if factors is not None:
                discard(factors)
            raise
        if delivery is not None:
            delivery.release()
        return StepResult(new, factors, reports)


@spark_task
def _run(
    block_task: BlockTask,
    broadcast: Broadcast[SideRows] | None,
    send: bool,
    keep: bool,
    records: Iterable[Any],
) -> Iterator[tuple[int, FactorBlock | None, FactorBlock | None]]:
    """Run a step on one block; yield the block's number and its rows to keep and to send."""
    received = block_task.receive(records)
    if received is None:
        return
    link_block = received.link_block

    def deliver() -> tuple[LinkBlock, Rows | None]:
        if broadcast is None:
            return link_block, None
        return link_block, broadcast.value.needed_by(link_block.in_block)

    for kept, sent in block_task.solve(received, deliver):
        yield link_block.block, kept if keep else None, sent if send else None


def _distribute(sc: SparkContext, blocks: list[FactorBlock], partitions: int) -> RDD[FactorBlock]:
    """Distribute the driver's factor blocks, each to the partition of its number."""
    numbered = sc.parallelize(list(enumerate(blocks)), max(1, min(partitions, len(blocks))))
    shuffle = Shuffle(numbered, partitions)
    try:
        factors = without_block_numbers(shuffle)
        cut_lineage(factors)
    finally:
        shuffle.release()
    return factors
