"""All rows to everyone, through the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, Broadcast, SparkContext

from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import InBlock, LinkBlock
from rddals.blocks.ratings import INT32_MIN
from rddals.errors import InconsistentRatingsError
from rddals.exchange.base import (
    NOTHING,
    Advance,
    BlockTask,
    Brought,
    Delivery,
    Exchange,
    Rows,
    Step,
    collect_reports,
)
from rddals.rdds.factors import in_their_blocks
from rddals.rdds.links import REMEDY, Links
from rddals.rdds.spark import ReportBook, Shuffle, co_partitioned, cut_lineage, spared

__all__ = ["BroadcastExchange", "SideRows"]


@dataclass(frozen=True)
class SideRows:
    """The rows of all blocks of a side, each to be found by its block and id.

    Attributes
    ----------
    ids : ndarray of int32, shape (n,)
        Block after block, ascending within each.
    counts : ndarray of int64, shape (blocks,)
        How many of them each block has.
    rows : ndarray of float32, shape (n, rank)
    """

    ids: NDArray[np.int32]
    counts: NDArray[np.int64]
    rows: Rows

    @classmethod
    def of(cls, blocks: Sequence[FactorBlock]) -> SideRows:
        """Join the rows of all blocks, in order."""
        counts = np.array([len(block.ids) for block in blocks])
        ids = np.concatenate([block.ids for block in blocks])
        return cls(ids, counts, np.concatenate([block.rows for block in blocks]))

    def needed_by(self, in_block: InBlock) -> Rows:
        """The rows that a block of the other side needs, in canonical order."""
        if np.array_equal(in_block.source_ids, self.ids) and np.array_equal(
            in_block.source_counts, self.counts
        ):
            return self.rows
        wanted = _keys(in_block.source_ids, in_block.source_counts)
        positions = np.searchsorted(self._keys, wanted)
        unknown = self._keys[positions] != wanted
        if unknown.any():
            source, id_ = divmod(int(wanted[np.argmax(unknown)]), 1 << 32)
            raise InconsistentRatingsError(
                f"Source block {source} has no factor for id {id_ + INT32_MIN}. {REMEDY}"
            )
        rows: Rows = self.rows.take(positions, axis=0)
        return rows

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        """Made once in a worker, however many of its blocks need rows; a last one is beyond all."""
        return np.append(_keys(self.ids, self.counts), np.iinfo(np.int64).max)


def _keys(ids: NDArray[np.int32], counts: NDArray[Any]) -> NDArray[np.int64]:
    """A number for each block and id; ascending, as the blocks do and the ids within each."""
    blocks = np.repeat(np.arange(len(counts)), counts)
    keys: NDArray[np.int64] = (blocks << 32) + (ids.astype(np.int64) - INT32_MIN)
    return keys


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

    def advance(
        self,
        links: Links,
        other: Links,
        delivery: Delivery | None,
        step: Step,
        *,
        brought: Brought = NOTHING,
        send: bool,
        keep: bool,
    ) -> Advance:
        assert delivery is None or isinstance(delivery, BroadcastRows)
        sc = links.rdd.context
        book = ReportBook(sc)
        records: RDD[Any] = co_partitioned([links.rdd, *brought.rdds])
        try:
            broadcast = None if delivery is None else delivery.broadcast
            task = _BroadcastTask(BlockTask(links, step, book), broadcast, send=send, keep=keep)
            solved = sorted(records.mapPartitions(task).collect(), key=lambda made: made[0])
            reports = collect_reports(book, links)
        finally:
            book.close()
            brought.release()
        factors = None
        if keep:
            factors = _placed(sc, [kept for _, kept, _ in solved], links.partitions)
        if delivery is not None:
            delivery.release()
        sent = [sent for _, _, sent in solved]
        return Advance(BroadcastRows(sc, sent) if send else None, factors, reports)


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

    @spared
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
        factors = in_their_blocks(shuffle)
        cut_lineage(factors)
    finally:
        shuffle.release()
    return factors
