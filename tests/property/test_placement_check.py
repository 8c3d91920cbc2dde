"""The driver's check that workers place ids as it does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partitioners import FunctionPartitioner
from rddals import SettingError
from rddals.blocks.checked_blocks import check_placement

BLOCKS = 5
placements = st.dictionaries(
    st.integers(-(2**31), 2**31 - 1),
    st.tuples(st.integers(0, BLOCKS - 1), st.integers(0, BLOCKS - 1)),
    max_size=30,
)


@given(placements)
def test_any_disagreement_raises(placements):
    """Each id has a block on the workers and one on the driver."""
    partitioner = FunctionPartitioner(BLOCKS, lambda id_: placements[id_][1])
    samples = [
        (block, np.array([i for i, (worker, _) in placements.items() if worker == block], np.int32))
        for block in range(BLOCKS)
    ]
    wrong = {id_: pair for id_, pair in placements.items() if pair[0] != pair[1]}
    if not wrong:
        check_placement(partitioner, samples)
        return
    with pytest.raises(SettingError) as caught:
        check_placement(partitioner, samples)
    assert any(
        f"places id {id_} in block {worker} on a worker, and in block {driver} on the driver"
        in str(caught.value)
        for id_, (worker, driver) in wrong.items()
    )
