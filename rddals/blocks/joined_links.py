"""All blocks of each side joined into one, so that one task can train without an exchange."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.codes import MAX_CODES
from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import Group, InBlock
from rddals.errors import InconsistentRatingsError


@dataclass(frozen=True, slots=True)
class JoinedLinks:
    """Links of a training, joined into one in-block per side.

    Attributes
    ----------
    in_blocks : pair of InBlock
        In-block of all users, and of all products.
    counts : pair of ndarray of int32, shape (blocks,)
        Ids per block, of users and of products.
    """

    in_blocks: tuple[InBlock, InBlock]
    counts: tuple[NDArray[np.int32], NDArray[np.int32]]

    @classmethod
    def of(cls, users: Sequence[InBlock], products: Sequence[InBlock]) -> JoinedLinks:
        """Join all blocks of both sides, in order.

        An id with ratings on one side only raises `InconsistentRatingsError`.
        """
        sides = (users, products)
        ids = [_concatenate(np.int32, [block.ids for block in side]) for side in sides]
        counts = [np.array([len(block.ids) for block in side], dtype=np.int32) for side in sides]
        user_block, product_block = (
            joined_in_block(side, ids[1 - number], counts[1 - number])
            for number, side in enumerate(sides)
        )
        return cls((user_block, product_block), (counts[0], counts[1]))

    def split_by_block(self, side: int, rows: NDArray[np.float32]) -> Iterator[FactorBlock]:
        """Split the rows of a side into its blocks."""
        stops = np.cumsum(self.counts[side]).tolist()
        for start, stop in zip([0, *stops], stops, strict=False):
            yield FactorBlock(self.in_blocks[side].ids[start:stop], rows[start:stop])


def joined_in_block(
    blocks: Sequence[InBlock], source_ids: NDArray[np.int32], source_counts: NDArray[np.int32]
) -> InBlock:
    """Concatenate all in-blocks of a side; degrees and ids ascend within each of them only.

    `source_ids` are all ids of the other side, in the order of the source rows, and `source_counts`
    their number per block. A block that needs any other id raises `InconsistentRatingsError`.
    """
    if len(blocks) == 1 and np.array_equal(blocks[0].source_ids, source_ids):
        return blocks[0]
    first_rows = np.cumsum([0, *(len(block.ids) for block in blocks)])
    first_entries = np.cumsum([0, *(len(block.sources) for block in blocks)])
    ascending = np.argsort(source_ids, kind="stable")
    codes, scale = _codes(blocks)
    kind = np.uint16 if len(source_ids) < 2**16 else np.int32
    return InBlock(
        ids=_concatenate(np.int32, [block.ids for block in blocks]),
        order=_concatenate(
            np.int32, [b.order + first for b, first in zip(blocks, first_rows, strict=False)]
        ),
        pointers=_concatenate(
            np.int64,
            [b.pointers[:-1] + first for b, first in zip(blocks, first_entries, strict=False)],
            [first_entries[-1:]],
        ),
        sources=_concatenate(
            kind,
            [
                _positions(block, source_ids, ascending).astype(kind)[block.sources]
                for block in blocks
            ],
        ),
        codes=codes,
        scale=scale,
        positives=_concatenate(np.int32, [block.positives for block in blocks]),
        source_ids=source_ids,
        source_counts=source_counts,
        groups=tuple(
            Group(group.start + int(first), group.stop + int(first), group.width)
            for block, first in zip(blocks, first_rows, strict=False)
            for group in block.groups
        ),
    )


def _concatenate(dtype: Any, arrays: list[NDArray[Any]], last: Sequence[Any] = ()) -> NDArray[Any]:
    joined: NDArray[Any] = np.concatenate([np.empty(0, dtype), *arrays, *last])
    return joined.astype(dtype, copy=False)


def _positions(
    block: InBlock, source_ids: NDArray[np.int32], ascending: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return the position of each source id of a block in `source_ids`."""
    nearest = np.searchsorted(source_ids, block.source_ids, sorter=ascending)
    positions = ascending[np.minimum(nearest, len(ascending) - 1)]
    unknown = source_ids[positions] != block.source_ids
    if unknown.any():
        raise InconsistentRatingsError(
            f"Id {block.source_ids[unknown][0]} has ratings on one side of the links only. The "
            "ratings changed between two readings: persist or checkpoint their RDD."
        )
    return positions


def _codes(blocks: Sequence[InBlock]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Return all codes and their common scale, or all ratings and None if a byte is too small."""
    scales = [block.scale for block in blocks if len(block.codes)]
    if all(scale is not None for scale in scales):
        bits = [scale.view(np.uint32) for scale in scales if scale is not None]
        common = reduce(np.union1d, bits, np.empty(0, np.uint32))
        if len(common) <= MAX_CODES:
            codes = [
                np.searchsorted(common, block.scale.view(np.uint32)).astype(np.uint8)[block.codes]
                for block in blocks
                if block.scale is not None and len(block.codes)
            ]
            return _concatenate(np.uint8, codes), common.astype(np.uint32).view(np.float32)
    return _concatenate(np.float32, [block.ratings for block in blocks]), None
