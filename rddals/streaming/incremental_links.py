"""Links of a block for the ids that a batch touches, with their earlier ratings.

A block solves the touched ids of its own side, each from all its ratings, and sends the rows that
touched ids of the other side need. In training both involve the same ratings; here they differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.blocks.links import InBlock, LinkBlock, link
from rddals.blocks.ratings import RatingBlock

#: Users and products that a batch touches, ascending.
Touched = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class IncrementalBlock(LinkBlock):
    """Links of one block whose ids may have earlier ratings.

    Attributes
    ----------
    batch : InBlock or None
        Links of the batch's ratings alone, with sources in an order of their own; None without a
        batch.
    """

    batch: InBlock | None = None


def incremental_block(
    block: int,
    ratings: RatingBlock,
    side: int,
    other: Partitioner,
    touched: Touched | None = None,
    batch: InBlock | None = None,
) -> IncrementalBlock:
    """Link all ratings of a block's ids, including those of a batch.

    `other` is the partitioner of the other side, and `batch` the links of the batch's ratings
    alone. Without `touched`, the batch touches all ids.
    """
    solved = sent = link(block, _touching(ratings, side, touched), side, other)
    if touched is not None:
        sent = link(block, _touching(ratings, 1 - side, touched), side, other)
    return IncrementalBlock(
        block,
        side,
        solved.in_block,
        sent.out_block,
        solved.digest,
        sending=None if touched is None else sent.in_block,
        batch=batch,
    )


def _touching(ratings: RatingBlock, side: int, touched: Touched | None) -> RatingBlock:
    """Return the ratings whose user or product is touched."""
    if touched is None:
        return ratings
    mask = np.isin((ratings.users, ratings.products)[side], touched[side])
    return RatingBlock(ratings.users[mask], ratings.products[mask], ratings.ratings[mask])
