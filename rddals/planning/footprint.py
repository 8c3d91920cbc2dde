"""Rows, messages and work of a placement, counted from the ratings without link blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.blocks.checked_blocks import checked_blocks
from rddals.blocks.links import distinct, needed_rows
from rddals.kernels.flops import flops


@dataclass(frozen=True, slots=True)
class Footprint:
    """Counts of one side under one placement, for some or all of its ids.

    Attributes
    ----------
    pairs : ndarray of int64, shape (messages,)
        Pairs of blocks that exchange a message, in ascending order: own block times `other_blocks`,
        plus block of the other side.
    rows : ndarray of int64, shape (messages,)
        Rows in each message.
    other_blocks : int
        Number of blocks of the other side.
    ids, ratings : ndarray of int64, shape (own blocks,)
        Ids and ratings of each own block.
    work : ndarray of float64, shape (own blocks,)
        Floating-point operations of solving each own block.
    """

    pairs: NDArray[np.int64]
    rows: NDArray[np.int64]
    other_blocks: int
    ids: NDArray[np.int64]
    ratings: NDArray[np.int64]
    work: NDArray[np.float64]

    @property
    def sent(self) -> NDArray[np.int64]:
        """Rows that each own block sends."""
        sums = np.bincount(self.pairs // self.other_blocks, self.rows, minlength=len(self.ids))
        return sums.astype(np.int64)

    @property
    def received(self) -> NDArray[np.int64]:
        """Rows that each block of the other side needs."""
        sums = np.bincount(self.pairs % self.other_blocks, self.rows, self.other_blocks)
        return sums.astype(np.int64)

    @classmethod
    def total(cls, parts: Sequence[Footprint]) -> Footprint:
        """Add up the footprints of parts that share no ids."""
        pairs, index = np.unique(np.concatenate([p.pairs for p in parts]), return_inverse=True)
        rows = np.bincount(index, np.concatenate([p.rows for p in parts]), len(pairs))
        return cls(
            pairs,
            rows.astype(np.int64),
            parts[0].other_blocks,
            np.sum([p.ids for p in parts], axis=0),
            np.sum([p.ratings for p in parts], axis=0),
            np.sum([p.work for p in parts], axis=0),
        )


def footprints(
    own: NDArray[np.int32],
    other: NDArray[np.int32],
    placements: Sequence[tuple[Partitioner, Partitioner]],
    rank: int,
) -> list[Footprint]:
    """Return the footprint of some ids under each placement, from all their ratings.

    `own` and `other` (n,) have the id and the other id of every rating; a placement is the
    partitioners of the own side and of the other side.
    """
    ids, row_of = distinct(own)
    other_ids, other_of = distinct(other)
    degrees = np.bincount(row_of, minlength=len(ids))
    work = flops(degrees, rank)
    # Placements often share a partitioner.
    needed: dict[Partitioner, Any] = {}
    result = []
    for own_partitioner, other_partitioner in placements:
        if other_partitioner not in needed:
            needed[other_partitioner] = needed_rows(
                row_of,
                other_of,
                checked_blocks(other_partitioner, other_ids),
                len(ids),
                other_partitioner.num_blocks,
            )
        rows, destinations = needed[other_partitioner]
        blocks = checked_blocks(own_partitioner, ids)
        own_blocks, other_blocks = own_partitioner.num_blocks, other_partitioner.num_blocks
        pairs = blocks[rows].astype(np.int64) * other_blocks + destinations
        messages, counts = np.unique(pairs, return_counts=True)
        result.append(
            Footprint(
                messages,
                counts,
                other_blocks,
                np.bincount(blocks, minlength=own_blocks),
                np.bincount(blocks, weights=degrees, minlength=own_blocks).astype(np.int64),
                np.bincount(blocks, weights=work, minlength=own_blocks).astype(np.float64),
            )
        )
    return result
