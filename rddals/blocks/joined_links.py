"""All blocks of both sides as one of either: what a single task solves without any exchange."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.codes import MOST_CODES
from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import Group, InBlock
from rddals.errors import InconsistentRatingsError

__all__ = ["JoinedLinks", "joined_in_block"]


@dataclass(frozen=True, slots=True)
class JoinedLinks:
    """The links of a training in one piece.

    Attributes
    ----------
    in_blocks : pair of InBlock
        Of all users, and of all products.
    counts : pair of ndarray of int32, shape (blocks,)
        How many ids each block of users, and of products, has.
    """

    in_blocks: tuple[InBlock, InBlock]
    counts: tuple[NDArray[np.int32], NDArray[np.int32]]

    @classmethod
    def of(cls, users: Sequence[InBlock], products: Sequence[InBlock]) -> JoinedLinks:
        """Join all blocks of both sides, in order.

        Raises
        ------
        InconsistentRatingsError
            If one side has an id that the other does not.
        """
        sides = (users, products)
        ids = [_joined(np.int32, [block.ids for block in side]) for side in sides]
        counts = [np.array([len(block.ids) for block in side], dtype=np.int32) for side in sides]
        of_users, of_products = (
            joined_in_block(side, ids[1 - number], counts[1 - number])
            for number, side in enumerate(sides)
        )
        return cls((of_users, of_products), (counts[0], counts[1]))

    def split_by_block(self, side: int, rows: NDArray[np.float32]) -> Iterator[FactorBlock]:
        """Rows of all ids of a side, as factors of its blocks."""
        stops = np.cumsum(self.counts[side]).tolist()
        for start, stop in zip([0, *stops], stops, strict=False):
            yield FactorBlock(self.in_blocks[side].ids[start:stop], rows[start:stop])


def joined_in_block(
    blocks: Sequence[InBlock], source_ids: NDArray[np.int32], source_counts: NDArray[np.int32]
) -> InBlock:
    """One in-block of all ids of a side, block after block.

    Its rows stay in the order of their blocks, so nothing is sorted again: within each block, and
    not over all of them, they are of rising degree. Its ids ascend within each block.

    Parameters
    ----------
    blocks : sequence of InBlock
        All of a side, in order.
    source_ids : ndarray of int32, shape (m,)
        All ids of the other side, block after block: the order of the source rows.
    source_counts : ndarray of int32, shape (source blocks,)
        How many of them each block has.

    Raises
    ------
    InconsistentRatingsError
        If a block needs the row of an id that is not among `source_ids`.
    """
    if len(blocks) == 1 and np.array_equal(blocks[0].source_ids, source_ids):
        return blocks[0]
    first_rows = np.cumsum([0, *(len(block.ids) for block in blocks)])
    first_entries = np.cumsum([0, *(len(block.sources) for block in blocks)])
    ascending = np.argsort(source_ids, kind="stable")
    codes, scale = _codes(blocks)
    kind = np.uint16 if len(source_ids) < 2**16 else np.int32
    return InBlock(
        ids=_joined(np.int32, [block.ids for block in blocks]),
        order=_joined(
            np.int32, [b.order + first for b, first in zip(blocks, first_rows, strict=False)]
        ),
        pointers=_joined(
            np.int64,
            [b.pointers[:-1] + first for b, first in zip(blocks, first_entries, strict=False)],
            [first_entries[-1:]],
        ),
        sources=_joined(
            kind,
            [
                _positions(block, source_ids, ascending).astype(kind)[block.sources]
                for block in blocks
            ],
        ),
        codes=codes,
        scale=scale,
        positives=_joined(np.int32, [block.positives for block in blocks]),
        source_ids=source_ids,
        source_counts=source_counts,
        groups=tuple(
            Group(group.start + int(first), group.stop + int(first), group.width)
            for block, first in zip(blocks, first_rows, strict=False)
            for group in block.groups
        ),
    )


def _joined(dtype: Any, arrays: list[NDArray[Any]], more: Sequence[Any] = ()) -> NDArray[Any]:
    joined: NDArray[Any] = np.concatenate([np.empty(0, dtype), *arrays, *more])
    return joined.astype(dtype, copy=False)


def _positions(
    block: InBlock, source_ids: NDArray[np.int32], ascending: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Where each of a block's source rows is among all of them."""
    found = np.searchsorted(source_ids, block.source_ids, sorter=ascending)
    positions = ascending[np.minimum(found, len(ascending) - 1)]
    unknown = source_ids[positions] != block.source_ids
    if unknown.any():
        raise InconsistentRatingsError(
            f"Id {block.source_ids[unknown][0]} has ratings on one side of the links alone."
        )
    return positions


def _codes(blocks: Sequence[InBlock]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """All ratings in one scale, if a byte can tell so many values apart."""
    scales = [block.scale for block in blocks if len(block.codes)]
    if all(scale is not None for scale in scales):
        bits = [scale.view(np.uint32) for scale in scales if scale is not None]
        common = reduce(np.union1d, bits, np.empty(0, np.uint32))
        if len(common) <= MOST_CODES:
            codes = [
                np.searchsorted(common, block.scale.view(np.uint32)).astype(np.uint8)[block.codes]
                for block in blocks
                if block.scale is not None and len(block.codes)
            ]
            return _joined(np.uint8, codes), common.astype(np.uint32).view(np.float32)
    return _joined(np.float32, [block.ratings for block in blocks]), None
