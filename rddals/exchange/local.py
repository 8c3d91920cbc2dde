"""Local exchange: all blocks run in one task and exchange rows in its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from pyspark import RDD

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock
from rddals.exchange.base import (
    BlockTask,
    Delivery,
    Exchange,
    HalfStep,
    Received,
    Rows,
    StepResult,
    collect_reports,
)
from rddals.exchange.side_rows import SideRows
from rddals.rdds.factors import without_block_numbers
from rddals.rdds.lifetimes import cut_lineage, discard
from rddals.rdds.links import Links
from rddals.rdds.one_task import in_one_task, numbered
from rddals.rdds.shuffles import Shuffle
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task


class StepOutput(NamedTuple):
    """Output of a step on one block: rows to keep and to send, if requested."""

    block: int
    kept: FactorBlock | None
    sent: FactorBlock | None


class LocalRows(Delivery):
    """Rows of one side, in the single partition that the next step reads."""

    def __init__(self, rdd: RDD[StepOutput]) -> None:
        self.rdd = rdd

    def release(self) -> None:
        discard(self.rdd)


class LocalExchange(Exchange):
    """Local exchange: run the steps of all blocks in one task.

    Between steps the rows are in an RDD with one partition. Training does not call this for every
    half-step: `rddals.training.segment` runs many of them in one task.
    """

    name = "local"

    def run_step(
        self, sides: tuple[Links, Links], delivery: Delivery | None, half_step: HalfStep
    ) -> StepResult:
        assert delivery is None or isinstance(delivery, LocalRows)
        links, other = sides[half_step.side], sides[1 - half_step.side]
        own_rows, send, keep = half_step.own_rows, half_step.send, half_step.keep
        task_reports = TaskReports(links.rdd.context)
        sent = [] if delivery is None else [delivery.rdd]
        records = in_one_task([links.rdd, *numbered(own_rows.rdds), *sent])
        sources = None if delivery is None else other.partitioner.num_blocks
        task = partial(_run, BlockTask(links, half_step.step, task_reports), sources, send, keep)
        outputs = records.mapPartitions(task)
        factors = None
        try:
            cut_lineage(outputs)
            try:
                reports = collect_reports(task_reports, links)
                if keep:
                    factors = _partition_kept(outputs, links.partitions)
            except BaseException:
                discard(outputs)
                raise
        finally:
            task_reports.close()
            own_rows.release()
        if delivery is not None:
            delivery.release()
        if send:
            return StepResult(LocalRows(outputs), factors, reports)
        discard(outputs)
        return StepResult(None, factors, reports)


@spark_task
def _run(
    block_task: BlockTask, sources: int | None, send: bool, keep: bool, records: Iterable[Any]
) -> Iterator[StepOutput]:
    """Run a step on every block; `sources` is the number of sending blocks, or None."""
    started = perf_counter()
    links: list[LinkBlock] = []
    delivered: dict[int, FactorBlock] = {}
    own: dict[int, list[tuple[int, FactorBlock]]] = {}
    for record in records:
        if isinstance(record, LinkBlock):
            links.append(record)
        elif isinstance(record, StepOutput):
            assert record.sent is not None
            delivered[record.block] = record.sent
        else:
            number, block, rows = record
            own.setdefault(block, []).append((number, rows))
    seconds = (perf_counter() - started) / max(1, len(links))
    side = None if sources is None else SideRows.of([delivered[block] for block in range(sources)])
    for link_block in sorted(links, key=lambda link_block: link_block.block):

        def deliver(link_block: LinkBlock = link_block) -> tuple[LinkBlock, Rows | None]:
            return link_block, None if side is None else side.needed_by(link_block.in_block)

        oldest_first = sorted(own.get(link_block.block, []), key=lambda numbered: numbered[0])
        received = Received(link_block, [rows for _, rows in oldest_first], [], seconds)
        for kept, sent in block_task.solve(received, deliver):
            yield StepOutput(link_block.block, kept if keep else None, sent if send else None)


def _partition_kept(outputs: RDD[StepOutput], partitions: int) -> RDD[FactorBlock]:
    """Return the rows to keep, each block in the partition of its number."""
    shuffle = Shuffle(outputs.mapPartitions(_kept), partitions)
    try:
        factors = without_block_numbers(shuffle)
        cut_lineage(factors)
    finally:
        shuffle.release()
    return factors


@spark_task
def _kept(outputs: Iterable[StepOutput]) -> Iterator[tuple[int, FactorBlock]]:
    return ((output.block, output.kept) for output in outputs if output.kept is not None)
