"""Models are as good as MLlib's on the same split and settings.

On PySpark's small sample the initial factors alone move the held-out RMSE by several hundredths.
There both trainings start from the same factors, those of MLlib after no iterations. On MovieLens
100K each starts from its own.
"""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pyspark
import pytest
from pyspark.mllib.recommendation import ALS as MLlibALS

from rddals import ALS, MatrixFactorizationModel

SAMPLE = Path(pyspark.__file__).parent / "data/mllib/als/sample_movielens_ratings.txt"
ML100K = os.environ.get("RDDALS_ML100K", "")

KINDS = ["explicit", "nonnegative", "implicit"]
RANK, ITERATIONS = 10, 10


def trained(als, ratings, kind, iterations=ITERATIONS, **settings):
    """Train a model with either library and equal settings."""
    if kind == "implicit":
        return als.trainImplicit(ratings, RANK, iterations, lambda_=0.1, alpha=1.0, **settings)
    nonnegative = kind == "nonnegative"
    return als.train(ratings, RANK, iterations, lambda_=0.1, nonnegative=nonnegative, **settings)


class Split:
    """Ratings by their positions among the ids; four fifths are for training."""

    def __init__(self, table):
        users, products, self.ratings = table.T
        (self.users, u), (self.products, p) = (
            np.unique(ids.astype(int), return_inverse=True) for ids in (users, products)
        )
        self.positions = np.stack([u, p])
        self.train = np.random.default_rng(5).random(len(table)) < 0.8

    def training_rdd(self, sc):
        u, p = self.positions[:, self.train]
        columns = (self.users[u], self.products[p], self.ratings[self.train])
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        rdd = sc.parallelize(rows, 2).cache()
        rdd.count()
        return rdd

    def predictions(self, model):
        """Return the predictions of all pairs; NaN for ids without training ratings."""
        sides = []
        for ids, features in (
            (self.users, model.userFeatures()),
            (self.products, model.productFeatures()),
        ):
            rows = np.full((len(ids), RANK), np.nan)
            for id_, row in features.collect():
                rows[np.searchsorted(ids, id_)] = row
            sides.append(rows)
        return sides[0] @ sides[1].T

    def rmse(self, model):
        u, p = self.positions[:, ~self.train]
        errors = self.predictions(model)[u, p] - self.ratings[~self.train]
        return float(np.sqrt(np.nanmean(errors**2)))

    def mean_rank(self, model):
        """Return the mean rank of held-out products among unseen ones: 0 is first, 1 last."""
        scores = self.predictions(model)
        scores[tuple(self.positions[:, self.train])] = np.nan
        ranks = []
        for u, p in self.positions[:, ~self.train].T:
            others = scores[u][~np.isnan(scores[u])]
            if not np.isnan(scores[u, p]) and len(others) > 1:
                ranks.append(np.sum(others > scores[u, p]) / (len(others) - 1))
        return float(np.mean(ranks))

    def quality(self, model, kind):
        return self.mean_rank(model) if kind == "implicit" else self.rmse(model)


@cache
def sample():
    return Split(np.array([line.split("::")[:3] for line in SAMPLE.open()], dtype=float))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_start_gives_mllibs_model(sc, tmp_path, kind):
    split = sample()
    ratings = split.training_rdd(sc)
    trained(MLlibALS, ratings, kind, 0, blocks=2, seed=3).save(sc, str(tmp_path / "start"))
    start = MatrixFactorizationModel.load(sc, str(tmp_path / "start"))
    mllib_model = trained(MLlibALS, ratings, kind, blocks=2, seed=3)
    rddals_model = trained(ALS, ratings, kind, blocks=2, initialModel=start)
    assert split.quality(rddals_model, kind) == pytest.approx(
        split.quality(mllib_model, kind), abs=0.001
    )
    np.testing.assert_allclose(
        split.predictions(rddals_model), split.predictions(mllib_model), atol=0.02
    )


def test_quality_measures_detect_an_untrained_model(sc):
    # An untrained model must fail the comparisons that the trained ones pass.
    split = sample()
    untrained = trained(ALS, split.training_rdd(sc), "explicit", 0, seed=1)
    assert split.rmse(untrained) > 1.5
    assert 0.4 < split.mean_rank(untrained) < 0.6


@pytest.mark.skipif(not ML100K, reason="RDDALS_ML100K names no MovieLens 100K ratings (u.data)")
@pytest.mark.parametrize("kind", KINDS)
def test_movielens_100k(sc, kind):
    split = movielens()
    ratings = split.training_rdd(sc)
    mllib_value = split.quality(trained(MLlibALS, ratings, kind, seed=1), kind)
    rddals_value = split.quality(trained(ALS, ratings, kind, seed=1), kind)
    print(f"{kind}: rddals {rddals_value:.4f}, MLlib {mllib_value:.4f}")
    assert rddals_value == pytest.approx(mllib_value, abs=0.01)
    assert rddals_value < (0.2 if kind == "implicit" else 0.96)


@cache
def movielens():
    return Split(np.loadtxt(ML100K, usecols=(0, 1, 2)))
