"""Rows of a whole side, selected for a block in its order."""

from dataclasses import replace

import numpy as np
import pytest

from partitioners import HashPartitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.errors import InconsistentRatingsError
from rddals.exchange.side_rows import SideRows

LOW, HIGH = -(2**31), 2**31 - 1
BLOCKS = [
    FactorBlock(np.array(ids, np.int32), np.array(ids, np.float32)[:, None] / 3)
    for ids in ([LOW, -4, 2, HIGH - 1], [], [-3, 1, HIGH])
]


def in_block_needing(ids, counts):
    """Return an in-block that needs these ids."""
    ratings = RatingBlock(*np.zeros((2, 1), np.int32), np.ones(1, np.float32))
    in_block = link(0, ratings, 0, HashPartitioner(1)).in_block
    return replace(
        in_block, source_ids=np.array(ids, np.int32), source_counts=np.array(counts, np.int32)
    )


@pytest.mark.parametrize(
    ("ids", "counts"),
    [
        ([LOW, 2, HIGH], [2, 0, 1]),
        ([LOW, -4, 2, HIGH - 1, -3, 1, HIGH], [4, 0, 3]),
        ([-3, HIGH], [0, 0, 2]),
        ([], [0, 0, 0]),
    ],
)
def test_rows_follow_the_order_of_the_blocks(ids, counts):
    rows = SideRows.of(BLOCKS).needed_by(in_block_needing(ids, counts))
    assert rows.shape == (len(ids), 1)
    np.testing.assert_array_equal(rows[:, 0], np.array(ids, np.float32) / 3)


@pytest.mark.parametrize(
    ("ids", "counts", "source", "unknown"),
    [
        ([2, 3], [2, 0, 0], 0, 3),
        ([2], [0, 1, 0], 1, 2),
        ([LOW, HIGH], [2, 0, 0], 0, HIGH),
        ([-4, LOW], [1, 0, 1], 2, LOW),
    ],
)
def test_id_missing_from_its_block_raises(ids, counts, source, unknown):
    with pytest.raises(
        InconsistentRatingsError, match=f"block {source} has no factor for id {unknown}\\."
    ):
        SideRows.of(BLOCKS).needed_by(in_block_needing(ids, counts))
