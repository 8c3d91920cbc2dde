"""Shuffle exchange: each source block sends each destination block the rows it needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock
from rddals.errors import InconsistentRatingsError
from rddals.exchange.base import (
    NO_ROWS,
    BlockTask,
    Delivery,
    Exchange,
    HalfStep,
    OwnRows,
    Rows,
    StepResult,
    collect_reports,
)
from rddals.rdds.lifetimes import cut_lineage, discard, materialise, storage_level
from rddals.rdds.links import REMEDY, Links
from rddals.rdds.shuffles import Shuffle, co_partitioned, identity, map_blocks
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

#: Function from a block and ``(source block, message)`` pairs to links to solve and source rows.
Unpack = Callable[[LinkBlock, list[tuple[int, Any]]], tuple[LinkBlock, Rows]]


class Messages(Delivery):
    """Messages in the shuffle files of the half-step that sent them."""

    def __init__(self, shuffle: Shuffle, earlier: Messages | None, own_rows: OwnRows) -> None:
        self.shuffle: Shuffle | None = shuffle
        self.rdd = shuffle.rdd
        # Until the lineage is cut, Spark needs these to recompute a lost message.
        self._earlier = earlier
        self._own_rows = own_rows

    def cut_lineage(self) -> None:
        copy = map_blocks(self.rdd, identity)
        cut_lineage(copy)
        self.release()
        self.shuffle, self.rdd, self._earlier, self._own_rows = None, copy, None, NO_ROWS

    def release(self) -> None:
        """Free these messages and the earlier ones they depend on."""
        current: Messages | None = self
        while current is not None:
            if current.shuffle is None:
                discard(current.rdd)
            else:
                current.shuffle.release()
            current._own_rows.release()
            current = current._earlier


class BlockToBlock(Exchange):
    """Exchange of messages between blocks, with one task per block and one shuffle per step."""

    def run_step(
        self, sides: tuple[Links, Links], delivery: Delivery | None, half_step: HalfStep
    ) -> StepResult:
        assert delivery is None or isinstance(delivery, Messages)
        links, other = sides[half_step.side], sides[1 - half_step.side]
        own_rows, send, keep = half_step.own_rows, half_step.send, half_step.keep
        sc = links.rdd.context
        task_reports = TaskReports(sc)
        sent = [] if delivery is None else [delivery.rdd]
        records: RDD[Any] = co_partitioned([links.rdd, *own_rows.rdds, *sent])
        unpack = None if delivery is None else self.unpacker(other.partitioner)
        destinations = other.partitioner.num_blocks if send else 0
        block_task = BlockTask(links, half_step.step, task_reports)
        task = partial(_run, block_task, unpack, self.pack, destinations)
        results = records.mapPartitions(task, preservesPartitioning=True)
        shuffle = factors = None
        try:
            if keep:
                results.persist(storage_level(sc))
            if send:
                shuffle = Shuffle(results.mapPartitions(_messages), links.partitions)
                shuffle.write()
            else:
                materialise(results)
            reports = collect_reports(task_reports, links)
            if keep:
                factors = map_blocks(results, _factors)
                cut_lineage(factors)
        except BaseException:
            if shuffle is not None:
                shuffle.release()
            own_rows.release()
            raise
        finally:
            if keep:
                results.unpersist()
            task_reports.close()
        if shuffle is not None:
            return StepResult(Messages(shuffle, delivery, own_rows), factors, reports)
        if delivery is not None:
            delivery.release()
        own_rows.release()
        return StepResult(None, factors, reports)

    @abstractmethod
    def pack(self, link_block: LinkBlock, rows: Rows, destination: int) -> Any:
        """Return the message of a block to block `destination`; None to send nothing."""

    @abstractmethod
    def unpacker(self, other: Partitioner) -> Unpack:
        """Return the function that reads messages; `other` places the ids of the sending side.

        The function travels to the workers, with all that it refers to.
        """


class ShuffleExchange(BlockToBlock):
    """Shuffle exchange: send each destination block only the rows it needs, ids ascending.

    A message is the number of rows and their bytes. A pickled array would add as many bytes as
    three rows of rank 10.
    """

    name = "shuffle"

    def unpacker(self, other: Partitioner) -> Unpack:
        return self.unpack

    def pack(self, link_block: LinkBlock, rows: Rows, destination: int) -> tuple[int, bytes] | None:
        needed = link_block.out_block.rows_for(destination)
        if not len(needed):
            return None
        sent = rows if len(needed) == len(rows) else rows.take(needed, axis=0)
        return len(sent), sent.tobytes()

    def unpack(
        self, link_block: LinkBlock, messages: list[tuple[int, tuple[int, bytes]]]
    ) -> tuple[LinkBlock, Rows]:
        in_block = link_block.in_block
        received_counts = np.zeros(len(in_block.source_counts), dtype=np.int64)
        for source, (count, _) in messages:
            received_counts[source] = count
        if not np.array_equal(received_counts, in_block.source_counts):
            wrong = int(np.argmax(received_counts != in_block.source_counts))
            raise InconsistentRatingsError(
                f"Block {link_block.block} needs {in_block.source_counts[wrong]} rows of source "
                f"block {wrong} but received {received_counts[wrong]}. {REMEDY}"
            )
        if not messages:
            return link_block, np.empty((0, 0), dtype=np.float32)
        received = np.frombuffer(b"".join(rows for _, (_, rows) in messages), dtype=np.float32)
        return link_block, received.reshape(len(in_block.source_ids), -1)


@spark_task
def _run(
    block_task: BlockTask,
    unpack: Unpack | None,
    pack: Callable[[LinkBlock, Rows, int], Any],
    destinations: int,
    records: Iterable[Any],
) -> Iterator[Any]:
    """Run a step on one block; yield its rows, and ``(destination, (block, message))`` pairs."""
    received = block_task.receive(records)
    if received is None:
        return
    link_block = received.link_block

    def deliver() -> tuple[LinkBlock, Rows | None]:
        if unpack is None:
            return link_block, None
        # Records are (this block, (source block, message)); source blocks are distinct.
        messages = sorted((pair for _, pair in received.messages), key=lambda pair: pair[0])
        return unpack(link_block, messages)

    for kept, sent in block_task.solve(received, deliver):
        yield kept
        for destination in range(destinations):
            message = pack(link_block, sent.rows, destination)
            if message is not None:
                yield destination, (link_block.block, message)


@spark_task
def _messages(results: Iterable[Any]) -> Iterator[Any]:
    return (record for record in results if not isinstance(record, FactorBlock))


@spark_task
def _factors(results: Iterable[Any]) -> Iterator[FactorBlock]:
    return (record for record in results if isinstance(record, FactorBlock))
