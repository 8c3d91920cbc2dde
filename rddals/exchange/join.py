"""Join exchange: ratings are joined with factors and moved in every half-step.

This is the textbook method, the baseline for the other exchanges. A block rebuilds its links from
the joined ratings it receives; from its own link block it uses only the number and the digest.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.blocks.links import LinkBlock, link
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import USERS
from rddals.errors import InconsistentRatingsError
from rddals.exchange.base import Rows
from rddals.exchange.shuffle import BlockToBlock, Unpack
from rddals.rdds.links import REMEDY

#: Sending id, solved id, value and the sender's row of every rating.
Joined = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32], Rows]


class JoinExchange(BlockToBlock):
    """Join exchange: send every rating with its source row to the destination block."""

    name = "join"

    def unpacker(self, other: Partitioner) -> Unpack:
        return partial(self.unpack, other)

    def pack(self, link_block: LinkBlock, rows: Rows, destination: int) -> Joined | None:
        block = link_block.sender
        # In canonical order the ids of one block of the other side are contiguous.
        stops = np.cumsum(block.source_counts)
        stop = stops[destination]
        start = stop - block.source_counts[destination]
        mask = (block.sources >= start) & (block.sources < stop)
        if not mask.any():
            return None
        own = np.repeat(block.order, block.degrees)[mask]
        return block.ids[own], block.source_ids[block.sources[mask]], block.ratings[mask], rows[own]

    def unpack(
        self, other: Partitioner, link_block: LinkBlock, messages: list[tuple[int, Joined]]
    ) -> tuple[LinkBlock, Rows]:
        if not messages:
            return link_block, np.empty((0, 0), dtype=np.float32)
        senders, solved, ratings, rows = (
            np.concatenate(column) for column in zip(*(m for _, m in messages), strict=True)
        )
        side = link_block.side
        users, products = (solved, senders) if side == USERS else (senders, solved)
        rebuilt = link(link_block.block, RatingBlock(users, products, ratings), side, other)
        if rebuilt.digest != link_block.digest:
            raise InconsistentRatingsError(
                f"Block {link_block.block} received ratings that differ from its links. {REMEDY}"
            )
        _, first = np.unique(senders, return_index=True)
        ascending = np.argsort(rebuilt.in_block.source_ids, kind="stable")
        source_rows = np.empty((len(first), rows.shape[1]), dtype=np.float32)
        source_rows[ascending] = rows[first]
        return replace(link_block, in_block=rebuilt.in_block), source_rows
