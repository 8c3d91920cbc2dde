"""Batches of the streams from files and sockets, and the states after each."""

from __future__ import annotations

import numpy as np
import pytest

from rddals import StreamingALS
from stream_checkpoints import SETTINGS, state_of, stream_at


@pytest.fixture(scope="module")
def batches():
    """Four batches; the third is the smallest, so that only some levels are merged."""
    numbers = np.random.default_rng(3)
    return [
        [
            (int(user), int(product), star / 10)
            for user, product, star in zip(
                numbers.integers(0, 12 + 5 * number, size),
                numbers.integers(0, 9 + 4 * number, size),
                numbers.integers(1, 51, size).tolist(),
                strict=True,
            )
        ]
        for number, size in enumerate((60, 30, 4, 25))
    ]


@pytest.fixture(scope="module")
def rdds(_spark, batches):
    return [_spark.parallelize(batch, 2) for batch in batches]


@pytest.fixture(scope="module")
def expected_states(rdds):
    """States of models after one to four batches without a checkpoint."""

    def learned(update):
        als = StreamingALS(**SETTINGS, update=update)
        after = []
        for rdd in rdds:
            als.train(rdd)
            after.append(state_of(als.model))
        return after

    return {update: learned(update) for update in ("sgd", "als")}


@pytest.fixture
def location(sc, tmp_path):
    return tmp_path / "als"


@pytest.fixture(scope="module")
def saved_streams(_spark, rdds, tmp_path_factory):
    """Checkpoints of three batches that tests only read."""
    folder = tmp_path_factory.mktemp("begun")
    for update in ("sgd", "als"):
        als = stream_at(folder / update, update=update)
        for number in (0, 1, 2):
            als.updateBatch(rdds[number], number)
    return folder
