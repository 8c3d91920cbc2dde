"""All blocks of a side as one: what a single task solves without any exchange."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.links import MOST_CODES, Group, InBlock
from rddals.errors import InconsistentRatingsError

__all__ = ["together"]


def together(
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
    narrow = len(source_ids) < 2**16
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
            np.uint16 if narrow else np.int32,
            [_positions(block, source_ids, ascending)[block.sources] for block in blocks],
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
