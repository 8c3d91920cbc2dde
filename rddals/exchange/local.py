"""Everything in one task: its memory is where rows are exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from pyspark import RDD

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock
from rddals.exchange.base import (
    NO_ROWS,
    BlockTask,
    Delivery,
    Exchange,
    OwnRows,
    Received,
    Rows,
    Step,
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

__all__ = ["LocalExchange"]


class StepOutput(NamedTuple):
    """What a block's step made: rows to keep and to send, where they are wanted."""

    block: int
    kept: FactorBlock | None
    sent: FactorBlock | None


class LocalRows(Delivery):
    """The rows of one side, in the one partition that the next step reads."""

    def __init__(self, rdd: RDD[StepOutput]) -> None:
        self.rdd = rdd

    def release(self) -> None:
        discard(self.rdd)


class LocalExchange(Exchange):
    """Runs the steps of all blocks in one task.

    Between steps the rows are in an RDD of one partition. A training does not come here for every
    half-step: `rddals.training.segment` runs many of them in a task.
    """

    name = "local"

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
        assert delivery is None or isinstance(delivery, LocalRows)
        task_reports = TaskReports(links.rdd.context)
        sent = [] if delivery is None else [delivery.rdd]
        records = in_one_task([links.rdd, *numbered(own_rows.rdds), *sent])
        sources = None if delivery is None else other.partitioner.num_blocks
        task = partial(_run, BlockTask(links, step, task_reports), sources, send, keep)
        made = records.mapPartitions(task)
        factors = None
        try:
            cut_lineage(made)
            try:
                reports = collect_reports(task_reports, links)
                if keep:
                    factors = _placed(made, links.partitions)
            except BaseException:
                discard(made)
                raise
        finally:
            task_reports.close()
            own_rows.release()
        if delivery is not None:
            delivery.release()
        if send:
            return StepResult(LocalRows(made), factors, reports)
        discard(made)
        return StepResult(None, factors, reports)


@spark_task
def _run(
    block_task: BlockTask, sources: int | None, send: bool, keep: bool, records: Iterable[Any]
) -> Iterator[StepOutput]:
    """Run a step on every block; `sources` is how many blocks have sent something, if any have."""
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


def _placed(made: RDD[StepOutput], partitions: int) -> RDD[FactorBlock]:
    """The rows that are kept, each block in the partition of its number."""
    shuffle = Shuffle(made.mapPartitions(_kept), partitions)
    try:
        factors = without_block_numbers(shuffle)
        cut_lineage(factors)
    finally:
        shuffle.release()
    return factors


@spark_task
def _kept(made: Iterable[StepOutput]) -> Iterator[tuple[int, FactorBlock]]:
    return ((of.block, of.kept) for of in made if of.kept is not None)
