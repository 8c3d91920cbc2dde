"""Rows of one side in levels, as in a log-structured merge tree.

A batch writes the rows it touched as a new level and rewrites no other row. A level that has grown
to half the size of the one below is merged with it. So there are few levels, each row is rewritten
a few times only, and superseded rows are not stored for long. (O'Neil, Cheng, Gawlick and O'Neil,
"The log-structured merge-tree", Acta Informatica 33, 1996.)
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
from rddals.rdds.shuffles import map_blocks
from rddals.rdds.worker_tuning import spark_task

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

Rows = NDArray[np.float32]


class Level(Shared):
    """Rows that were written together.

    Attributes
    ----------
    blocks : RDD of FactorBlock or RatingBlock
        Persisted; block b in partition b.
    rows : int
        Number of rows, or slightly more.
    saved : str or None
        Name of the level in a checkpoint; None if it was not saved.
    """

    def __init__(self, blocks: RDD[Any], rows: int) -> None:
        super().__init__(blocks)
        self.blocks = blocks
        self.rows = rows
        self.saved: str | None = None


@dataclass(frozen=True, slots=True)
class Levels:
    """All rows of one side. The newest level that has an id holds its row.

    Attributes
    ----------
    partitioner : Partitioner
        Partitioner of the ids.
    levels : tuple of Level
        Levels, oldest first.
    merge : callable
        Function that merges the RDDs of several levels into one.
    """

    partitioner: Partitioner
    levels: tuple[Level, ...] = ()
    merge: Callable[[Sequence[RDD[Any]]], RDD[Any]] = newest_rows

    @property
    def rdds(self) -> list[RDD[Any]]:
        """Blocks of every level, oldest first."""
        return [level.blocks for level in self.levels]

    def with_level(self, newer: RDD[Any], rows: int, ids: int) -> Levels:
        """Return these levels with a new one of `rows` rows, merged with those that are too small.

        `newer` is persisted and partitioned like the levels; the result takes `newer` over. `ids`
        is the number of ids in all levels.
        """
        older = list(self.levels)
        merged = [newer]
        while older and older[-1].rows < 2 * rows:
            level = older.pop()
            merged.insert(0, level.blocks)
            rows = min(ids, rows + level.rows)
        if len(merged) > 1:
            blocks = self.merge(merged)
            try:
                cut_lineage(blocks)
            finally:
                discard(newer)
            newer = blocks
        return replace(self, levels=(*older, Level(newer, rows)))

    def table(self) -> FactorTable:
        """Return all rows as one table, computed again on every read."""
        return FactorTable(self.merge(self.rdds), self.partitioner)

    def view(self, function: Callable[[Rows], Rows]) -> FactorTable:
        """Apply `function` to all rows; like `table`, computed again on every read."""
        blocks = map_blocks(self.merge(self.rdds), partial(_mapped, function))
        return FactorTable(blocks, self.partitioner)

    def retain(self) -> Self:
        """Add a reference to every level."""
        for level in self.levels:
            level.retain()
        return self

    def release(self) -> None:
        """Remove a reference from every level, and free the levels without references."""
        for level in self.levels:
            level.release()

    def discard(self) -> None:
        """Free the levels that nobody retains."""
        for level in self.levels:
            level.discard()


@spark_task
def _mapped(
    function: Callable[[Rows], Rows], blocks: Iterable[FactorBlock]
) -> Iterator[FactorBlock]:
    return (FactorBlock(block.ids, function(block.rows)) for block in blocks)
