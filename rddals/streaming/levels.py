"""Rows of one side that batches change: what is old stays, what is new is laid on top.

A batch writes the rows it touched as a level of their own, and rewrites no other. A level that
has grown to half the size of the one below is merged with it, so that there are few of them, each
row is rewritten a few times only, and none is kept that was superseded long ago. (The scheme of
log-structured merge trees: O'Neil, Cheng, Gawlick and O'Neil, Acta Informatica 33, 1996.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import Partitioner
from rddals.blocks.factors import FactorBlock
from rddals.rdds.factors import FactorTable, newest_rows
from rddals.rdds.lifetimes import Shared, cut_lineage, discard
from rddals.rdds.shuffles import with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["Level", "Levels"]

Rows = NDArray[np.float32]


class Level(Shared):
    """Rows that were written together.

    Attributes
    ----------
    blocks : RDD of FactorBlock or RatingBlock
        Persisted; block b in partition b.
    rows : int
        How many there are, or a few more.
    saved : str or None
        What a checkpoint calls it, if it holds it.
    """

    def __init__(self, blocks: RDD[Any], rows: int) -> None:
        super().__init__(blocks)
        self.blocks = blocks
        self.rows = rows
        self.saved: str | None = None


@dataclass(frozen=True, slots=True)
class Levels:
    """All rows of one side; of an id that several levels know, the last one's row.

    Attributes
    ----------
    partitioner : Partitioner
        In which block an id lives.
    levels : tuple of Level
        Oldest first.
    merge : callable
        Makes one RDD of several levels'.
    """

    partitioner: Partitioner
    levels: tuple[Level, ...] = ()
    merge: Callable[[Sequence[RDD[Any]]], RDD[Any]] = newest_rows

    @property
    def rdds(self) -> list[RDD[Any]]:
        """Every level's blocks, oldest first."""
        return [level.blocks for level in self.levels]

    def with_level(self, newer: RDD[Any], rows: int, ids: int) -> Levels:
        """These levels and one more.

        Parameters
        ----------
        newer : RDD
            Persisted, and partitioned like the levels. It is used up.
        rows : int
            How many rows it has.
        ids : int
            How many ids there are in all levels.
        """
        kept = list(self.levels)
        merged = [newer]
        while kept and kept[-1].rows < 2 * rows:
            level = kept.pop()
            merged.insert(0, level.blocks)
            rows = min(ids, rows + level.rows)
        if len(merged) > 1:
            blocks = self.merge(merged)
            try:
                cut_lineage(blocks)
            finally:
                discard(newer)
            newer = blocks
        return replace(self, levels=(*kept, Level(newer, rows)))

    def table(self) -> FactorTable:
        """All rows in one; a view that computes them whenever it is read."""
        return FactorTable(self.merge(self.rdds), self.partitioner)

    def view(self, function: Callable[[Rows], Rows]) -> FactorTable:
        """What `function` makes of all rows; like `table` computed whenever it is read."""
        blocks = self.merge(self.rdds).mapPartitions(
            partial(_mapped, function), preservesPartitioning=True
        )
        return FactorTable(with_shuffle_serializer(blocks), self.partitioner)

    def retain(self) -> Self:
        """Count one more that needs these levels."""
        for level in self.levels:
            level.retain()
        return self

    def release(self) -> None:
        """Count one less; levels that nobody needs are freed."""
        for level in self.levels:
            level.release()


@spark_task
def _mapped(
    function: Callable[[Rows], Rows], blocks: Iterable[FactorBlock]
) -> Iterator[FactorBlock]:
    return (FactorBlock(block.ids, function(block.rows)) for block in blocks)
