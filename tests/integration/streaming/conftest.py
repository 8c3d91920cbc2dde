"""Models of three batches that the tests of streaming models share."""

from __future__ import annotations

import numpy as np
import pytest

from rddals import ALS, StreamingALS
from stream_models import RANK, SETTINGS


@pytest.fixture(scope="module")
def batches(ratings):
    """Three batches with new, absent and returning ids, and duplicates."""
    rng = np.random.default_rng(1)
    shuffled = [ratings[i] for i in rng.permutation(len(ratings))]
    tenths = [(u, p, r + 0.1) for u, p, r in shuffled]
    first = [r for r in tenths[:100] if r[0] < 25 and r[1] < 33]
    second = [r for r in tenths[100:170] if r[0] > 3 and r[1] > 5]
    second += [(u, p, 6 - r) for u, p, r in second[:7]] + first[:5]
    return [first, second, tenths[170:200]]


@pytest.fixture(scope="module")
def pairs(batches):
    """Every user with every product; 99 and 77 have no rating."""
    users = {u for batch in batches for u, _, _ in batch}
    products = {p for batch in batches for _, p, _ in batch}
    return [(u, p) for u in sorted({*users, 99}) for p in sorted({*products, 77})]


@pytest.fixture(scope="module")
def rdds(_spark, batches):
    return [_spark.parallelize(batch, 2) for batch in batches]


@pytest.fixture(scope="module")
def models(rdds):
    """The models after one, two and three batches."""
    trained = [StreamingALS.train(rdds[0], **SETTINGS)]
    for rdd in rdds[1:]:
        trained.append(trained[-1].train(rdd))
    yield trained
    for model in trained:
        model.unpersist()


@pytest.fixture(scope="module")
def batch_model(_spark, ratings):
    model = ALS.train(
        _spark.parallelize(ratings, 2), RANK, 2, 0.1, seed=3, userBlocks=2, productBlocks=5
    )
    yield model
    model.unpersist()
