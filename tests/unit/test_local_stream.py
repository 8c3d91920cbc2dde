"""The benchmarks' stream without Spark matches the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data import in_batches
from bench.local_stream import LocalStream
from rddals import RatingBlock
from rddals.blocks.start import id_start
from rddals.streaming.block_step import START_LENGTH
from stream_reference import ReferenceStream

RANK, SEED = 3, 7


@pytest.mark.parametrize("iterations", [1, 3])
def test_local_stream_matches_the_reference(ratings, iterations):
    def start(product):
        ids = np.array([product], dtype=np.int32)
        return START_LENGTH * id_start(ids, rank=RANK, seed=SEED, side=1)[0].astype(np.float64)

    local = LocalStream(rank=RANK, seed=SEED, iterations=iterations)
    reference = ReferenceStream(RANK, start, iterations=iterations)
    for batch in in_batches(RatingBlock.from_rows(list(ratings)), 80):
        local.learn(batch)
        columns = batch.users.tolist(), batch.products.tolist(), batch.ratings.tolist()
        reference.train(list(zip(*columns, strict=True)))
    assert local.mean == pytest.approx(reference.mean)
    for side, rows in zip(local.sides, (reference.users, reference.products), strict=True):
        assert side.ids.tolist() == sorted(rows)
        expected = np.stack([rows[id_] for id_ in sorted(rows)])
        np.testing.assert_allclose(side.rows[:, :-1], expected, atol=1e-5)
