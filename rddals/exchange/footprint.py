"""What a placement of ids amounts to, counted from the ratings and without any link blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from partitioners import Partitioner
from rddals.blocks.links import distinct, needed_rows
from rddals.blocks.places import place
from rddals.kernels.work import flops

__all__ = ["Footprint", "footprints"]


@dataclass(frozen=True, slots=True)
class Footprint:
    """One side under one placement; of some of its ids, or of all.

    Attributes
    ----------
    sent : csr_array of int64, shape (own blocks, other blocks)
        How many rows of each block each block of the other side needs.
    ids, ratings : ndarray of int64, shape (own blocks,)
    work : ndarray of float64, shape (own blocks,)
        Floating-point operations that solving the block takes.
    """

    sent: csr_array
    ids: NDArray[np.int64]
    ratings: NDArray[np.int64]
    work: NDArray[np.float64]

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(
            self.sent + other.sent,
            self.ids + other.ids,
            self.ratings + other.ratings,
            self.work + other.work,
        )

    @classmethod
    def total(cls, parts: Sequence[Footprint]) -> Footprint:
        """That of all ids; no id may be in two parts."""
        return reduce(add, parts)


def footprints(
    own: NDArray[np.int32],
    other: NDArray[np.int32],
    placements: Sequence[tuple[Partitioner, Partitioner]],
    rank: int,
) -> list[Footprint]:
    """The footprint of some ids under each placement.

    Parameters
    ----------
    own, other : ndarray of int32, shape (n,)
        All ratings of these ids: the id itself, and the id of the other side.
    placements : sequence of pairs of Partitioner
        Of the own side and of the other.
    rank : int
    """
    ids, row_of = distinct(own)
    other_ids, other_of = distinct(other)
    degrees = np.bincount(row_of, minlength=len(ids))
    work = flops(degrees, rank)
    # Placements mostly share partitioners.
    needed: dict[Partitioner, Any] = {}
    found = []
    for own_partitioner, other_partitioner in placements:
        if other_partitioner not in needed:
            destinations = place(other_partitioner, other_ids)[other_of]
            needed[other_partitioner] = needed_rows(
                row_of, destinations, len(ids), other_partitioner.num_blocks
            )
        rows, destinations = needed[other_partitioner]
        blocks = place(own_partitioner, ids)
        shape = (own_partitioner.num_blocks, other_partitioner.num_blocks)
        pairs = blocks[rows].astype(np.int64) * shape[1] + destinations
        cells, counts = np.unique(pairs, return_counts=True)
        found.append(
            Footprint(
                csr_array((counts, np.divmod(cells, shape[1])), shape=shape, dtype=np.int64),
                np.bincount(blocks, minlength=shape[0]),
                np.bincount(blocks, weights=degrees, minlength=shape[0]).astype(np.int64),
                np.bincount(blocks, weights=work, minlength=shape[0]).astype(np.float64),
            )
        )
    return found
