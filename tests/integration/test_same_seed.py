"""Equal ratings, seed and blocks give MLlib's model for any placement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyspark
import pytest
from pyspark.mllib.recommendation import ALS as MLlibALS

from partitioners import HashPartitioner, RangePartitioner
from rddals import ALS, InconsistentRatingsError
from rddals.blocks.xorshift import gaussians, longs
from rddals.rdds.links import build_links
from rddals.training.start import start_of_mllib

SAMPLE = Path(pyspark.__file__).parent / "data/mllib/als/sample_movielens_ratings.txt"
RANK = 5
TRAIN = {
    "explicit": ("train", dict(lambda_=0.05)),
    "implicit": ("trainImplicit", dict(lambda_=0.1, alpha=2.0)),
    "nonnegative": ("train", dict(lambda_=0.05, nonnegative=True)),
}


@pytest.fixture(scope="module")
def sample(_spark):
    """PySpark's sample ratings; every third user has a negative id."""
    rows = [line.split("::")[:3] for line in SAMPLE.open()]
    ratings = [(int(u) - 90 * (int(u) % 3 == 0), int(p), float(r)) for u, p, r in rows]
    rdd = _spark.parallelize(ratings, 2).cache()
    rdd.count()
    yield rdd
    rdd.unpersist()


def trained(als, kind, ratings, iterations, **settings):
    method, own = TRAIN[kind]
    return getattr(als, method)(ratings, RANK, iterations, **own, **settings)


def factors(model):
    """Yield each side's ids, ascending, and rows."""
    for features in (model.userFeatures(), model.productFeatures()):
        ids, rows = zip(*sorted((id_, list(row)) for id_, row in features.collect()), strict=True)
        yield np.array(ids), np.array(rows)


def assert_same(model, other, tolerance):
    (users, X), (products, Y) = factors(model)
    (other_users, U), (other_products, V) = factors(other)
    np.testing.assert_array_equal(users, other_users)
    np.testing.assert_array_equal(products, other_products)
    np.testing.assert_allclose(X, U, atol=tolerance, rtol=0)
    np.testing.assert_allclose(Y, V, atol=tolerance, rtol=0)
    np.testing.assert_allclose(X @ Y.T, U @ V.T, atol=tolerance, rtol=0)


@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("kind", TRAIN)
def test_equal_seed_gives_mllibs_model(sc, sample, kind, blocks):
    seed = 17 * blocks - 40
    mllib_model = trained(MLlibALS, kind, sample, 5, blocks=blocks, seed=seed)
    rddals_model = trained(ALS, kind, sample, 5, blocks=blocks, seed=seed)
    assert_same(rddals_model, mllib_model, 1e-4)


@pytest.mark.parametrize("seed", [-1, 2**63 - 1])
def test_any_seed_gives_mllibs_initial_factors(sc, sample, seed):
    mllib_model = trained(MLlibALS, "explicit", sample, 0, blocks=3, seed=seed)
    rddals_model = trained(ALS, "explicit", sample, 0, blocks=3, seed=seed)
    assert_same(rddals_model, mllib_model, 1e-6)


@pytest.mark.parametrize(
    ("partitioner", "exchange"),
    [("range", "shuffle"), ("balanced", "broadcast"), (lambda id_: id_ % 7 % 3, "join")],
    ids=["range", "balanced", "function"],
)
def test_initial_factors_do_not_depend_on_placement(sc, sample, footprint, partitioner, exchange):
    placed = dict(userPartitioner=partitioner, productPartitioner=partitioner, exchange=exchange)
    plain = trained(ALS, "explicit", sample, 1, blocks=3, seed=4)
    rddals_model = trained(ALS, "explicit", sample, 1, blocks=3, seed=4, **placed)
    assert_same(rddals_model, plain, 1e-5)
    plain.unpersist()
    rddals_model.unpersist()
    assert not footprint.remaining()


def test_missing_starting_row_raises(sc, sample, footprint):
    links = build_links(sample, RangePartitioner([0]), HashPartitioner(2))
    start = start_of_mllib(links.users, RANK, 3)
    try:
        assert start.make(np.empty(0, np.int32)).shape == (0, RANK)
        with pytest.raises(InconsistentRatingsError, match="Id 7 has no starting row"):
            start.make(np.array([7], np.int32))
    finally:
        for shuffle in start.shuffles:
            shuffle.release()
        links.release()
    assert not footprint.remaining()


def test_model_records_a_drawn_seed(sc, sample):
    first = trained(ALS, "explicit", sample, 0, blocks=2)
    second = trained(ALS, "explicit", sample, 0, blocks=2)
    assert first.seed != second.seed
    again = trained(MLlibALS, "explicit", sample, 0, blocks=2, seed=first.seed)
    assert_same(first, again, 1e-6)


@pytest.mark.parametrize("seed", [0, 1, -1, 12345678901234, 2**63 - 1, -(2**63)])
def test_generator_matches_sparks(sc, seed):
    random = sc._jvm.org.apache.spark.util.random.XORShiftRandom(seed)
    assert longs(seed, 2) == [random.nextLong() % 2**64 for _ in range(2)]
    random = sc._jvm.org.apache.spark.util.random.XORShiftRandom(seed)
    expected = [random.nextGaussian() for _ in range(200)]
    np.testing.assert_allclose(gaussians(seed, 200), expected, rtol=1e-14, atol=0)
