"""Links of a block whose ids have ratings from before, of which a batch touches some.

What is solved are the touched ids of this side, each from all its ratings; what is sent are the
rows that touched ids of the other side need. In training these are the same ratings; here they are
not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.blocks.links import InBlock, LinkBlock, link
from rddals.blocks.ratings import RatingBlock

__all__ = ["IncrementalBlock", "Touched", "incremental_block"]

#: The users and the products that a batch touches, ascending.
Touched = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class IncrementalBlock(LinkBlock):
    """The links of one block, whose ids may have ratings from before.

    Attributes
    ----------
    batch : InBlock or None
        The ratings of the batch alone, its sources in an order of their own; None if there is no
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
    """Link a block's ratings, those of a batch included.

    Parameters
    ----------
    block : int
    ratings : RatingBlock
        All that its ids have.
    side : int
        0 if they are users, 1 if products.
    other : Partitioner
        Places the ids of the other side.
    touched : Touched, optional
        What is solved; everything if left out.
    batch : InBlock, optional
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
    """The ratings whose user, or product, is touched."""
    if touched is None:
        return ratings
    here = np.isin((ratings.users, ratings.products)[side], touched[side])
    return RatingBlock(ratings.users[here], ratings.products[here], ratings.ratings[here])
