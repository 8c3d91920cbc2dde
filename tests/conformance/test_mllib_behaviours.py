"""Behaviours that MLlib's tests check, checked on rddals; equal error messages, on both."""

from __future__ import annotations

import re
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.mllib.recommendation import ALS as MLlibALS
from pyspark.mllib.recommendation import MatrixFactorizationModel as MLlibModel

import small_matrix as small
from rddals import (
    ALS,
    MatrixFactorizationModel,
    RatingError,
    RatingTypeError,
    SettingError,
    UnknownIdError,
)

METHODS = ["train", "trainImplicit"]
FEW = [(1, 1, 1.0), (1, 2, 2.0), (2, 1, 2.0), (2, 2, 4.0)]
TRUTH = {"train": [[1, 2], [2, 4]], "trainImplicit": [[1, 1], [1, 1]]}  # of FEW, both of rank 1


@dataclass(frozen=True)
class Planted:
    """A matrix to be recovered from some of its cells."""

    truth: np.ndarray
    given: np.ndarray
    first_user: int = 0
    first_product: int = 0

    def ratings(self, sc):
        cells = np.argwhere(self.given).tolist()
        rows = [
            (u + self.first_user, p + self.first_product, float(self.truth[u, p])) for u, p in cells
        ]
        return sc.parallelize(rows, 2)

    def worst_error(self, model):
        return np.abs(predictions(model) - self.truth).max()


def planted(rng, n_users, n_products, rank, draw, **ids):
    """Return a product of two factor matrices with 70 % of its cells given."""
    X, Y = draw(size=(n_users, rank)), draw(size=(n_products, rank))
    return Planted(X @ Y.T, rng.random((n_users, n_products)) < 0.7, **ids)


def features(model):
    """Yield each side's ids, ascending, and rows."""
    for side in (model.userFeatures(), model.productFeatures()):
        ids, rows = zip(*sorted((id_, list(row)) for id_, row in side.collect()), strict=True)
        yield np.array(ids), np.array(rows)


def predictions(model):
    """Return the predictions of all pairs by a model of either library."""
    (_, X), (_, Y) = features(model)
    return X @ Y.T


def assert_same(model, other, tolerance=0.0):
    for (ids, rows), (other_ids, other_rows) in zip(features(model), features(other), strict=True):
        np.testing.assert_array_equal(ids, other_ids)
        np.testing.assert_allclose(rows, other_rows, atol=tolerance, rtol=0)


# ------------------------------------------------------------------ planted matrices

SIZES = {1: (50, 100), 2: (100, 200)}


@pytest.mark.parametrize("rank", SIZES)
def test_every_cell_of_a_planted_matrix_is_recovered(sc, rank):
    rng = np.random.default_rng(rank)
    matrix = planted(rng, *SIZES[rank], rank, rng.normal)
    model = ALS.train(matrix.ratings(sc), rank, 4, 0.001, 2, seed=1)
    assert matrix.worst_error(model) < 0.3


@pytest.mark.parametrize("rank", SIZES)
def test_planted_preferences_are_recovered(sc, rank):
    rng = np.random.default_rng(rank)
    tastes, traits = (rng.integers(0, 2, n) for n in SIZES[rank])
    liked = (tastes[:, None] == traits) & (traits < rank)
    strength = rng.integers(1, 10, SIZES[rank])
    matrix = Planted(np.where(liked, strength, -strength), rng.random(SIZES[rank]) < 0.7)
    model = ALS.trainImplicit(matrix.ratings(sc), rank, 4, 0.01, 2, alpha=1.0, seed=1)
    squares = (predictions(model) - liked) ** 2
    assert np.sqrt(np.average(squares, weights=1 + strength)) < 0.4


@pytest.mark.parametrize("rank", SIZES)
def test_planted_nonnegative_factors_are_recovered(sc, rank):
    rng = np.random.default_rng(rank)
    matrix = planted(rng, 50, 80, rank, lambda size: np.maximum(rng.normal(size=size), 0))
    model = ALS.train(matrix.ratings(sc), rank, 6, 0.001, 2, nonnegative=True, seed=1)
    assert matrix.worst_error(model) < 0.4
    assert all((rows >= 0).all() for _, rows in features(model))


def test_negative_ids_on_both_sides(sc):
    rng = np.random.default_rng(3)
    matrix = planted(rng, 30, 40, 1, rng.normal, first_user=-15, first_product=-40)
    model = ALS.train(matrix.ratings(sc), 1, 3, 0.001, 2, seed=1)
    assert [ids.tolist() for ids, _ in features(model)] == [[*range(-15, 15)], [*range(-40, 0)]]
    assert matrix.worst_error(model) < 0.3
    assert model.predict(-15, -40) == pytest.approx(matrix.truth[0, 0], abs=0.3)


# ------------------------------------------------------------------ blocks, seeds, iterations


@pytest.mark.parametrize(("users", "products"), [(1, 1), (1, 2), (2, 1), (2, 2), (4, 2)])
def test_any_block_counts_recover_the_matrix(sc, users, products):
    rng = np.random.default_rng(4)
    matrix = planted(rng, 30, 40, 2, rng.normal)
    blocks = dict(userBlocks=users, productBlocks=products)
    model = ALS.train(matrix.ratings(sc), 2, 4, 0.001, seed=1, **blocks)
    sides = [model.userFeatures().partitioner, model.productFeatures().partitioner]
    assert [len({side(id_) for id_ in range(30)}) for side in sides] == [users, products]
    assert matrix.worst_error(model) < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_more_blocks_than_ratings(sc, method):
    few = sc.parallelize(FEW, 2)
    model = getattr(ALS, method)(few, 1, 2, 0.001, seed=1, userBlocks=7, productBlocks=5)
    np.testing.assert_allclose(predictions(model), TRUTH[method], atol=0.1)


def test_implicit_model_depends_on_the_seed(sc):
    ratings = sc.parallelize(small.RATINGS, 2)
    one, again, other = (
        ALS.trainImplicit(ratings, 2, 1, 0.1, 2, alpha=2.0, seed=seed) for seed in (5, 5, 6)
    )
    assert_same(one, again)
    assert np.abs(predictions(one) - predictions(other)).max() > 0.01


def test_50_implicit_iterations_without_a_checkpoint_directory(sc):
    assert sc.getCheckpointDir() is None
    model = ALS.trainImplicit(sc.parallelize(FEW, 1), 1, 50, 0.01, 1, seed=1, listeners=())
    losses = np.array([half_step.loss for half_step in model.history])
    assert len(losses) == 100
    assert (np.diff(losses) <= 1e-6 * losses[:-1]).all()
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(predictions(model), TRUTH["trainImplicit"], atol=0.1)


# ------------------------------------------------------------------ zeros and negatives, implicit

LIKES = dict(rank=2, iterations=4, lambda_=0.05, blocks=2, alpha=10.0, seed=1)
UNRATED = (0, 0), (1, 3)


@pytest.fixture(scope="module")
def likes():
    """Ratings of twelve users, who like the products of their parity and rated most of them."""
    rng = np.random.default_rng(6)
    pairs = [(u, p) for u in range(12) for p in range(16) if u % 2 == p % 2]
    rated = [pair for pair in pairs if rng.random() < 0.8 and pair not in UNRATED]
    return [(u, p, float(rng.integers(1, 6))) for u, p in rated]


def train_likes(sc, ratings, als=ALS, **settings):
    return als.trainImplicit(sc.parallelize(ratings, 2), **LIKES | settings)


@pytest.fixture(scope="module")
def base_model(likes, _spark):
    """The model of these ratings alone."""
    model = train_likes(_spark, likes)
    yield model
    model.unpersist()


def test_negative_ratings_lower_the_preference(sc, likes, base_model):
    model = train_likes(sc, [*likes, (0, 0, -1.0), (1, 3, -1000.0)])
    assert min(base_model.predict(*pair) for pair in UNRATED) > 0.5
    assert model.predict(0, 0) < base_model.predict(0, 0) - 0.05
    assert model.predict(1, 3) == pytest.approx(0, abs=0.05)


def test_zero_ratings_change_no_other_factor(sc, likes, base_model):
    model = train_likes(sc, [*likes, (0, 0, 0.0), (0, 1, 0.0), (3, 8, 0.0), (4, 200, 0.0)])
    (users, X), (products, Y) = features(model)
    (plain_users, plain_X), (plain_products, plain_Y) = features(base_model)
    assert users.tolist() == plain_users.tolist()
    assert products.tolist() == [*plain_products.tolist(), 200]
    np.testing.assert_allclose(X, plain_X, atol=1e-6)
    np.testing.assert_allclose(Y[:-1], plain_Y, atol=1e-6)
    assert not Y[-1].any()
    assert model.predict(4, 200) == 0


def test_user_with_only_zero_ratings_gets_a_zero_row(sc, likes, base_model):
    model = train_likes(sc, [*likes, (100, 3, 0.0)])
    (users, X), (_, Y) = features(model)
    assert users[-1] == 100
    assert not X[-1].any()
    assert model.predict(100, 3) == 0
    # The products were solved once with the row that user 100 started from.
    np.testing.assert_allclose(X[:-1] @ Y.T, predictions(base_model), atol=0.01)


def test_unusual_ratings_and_ids_match_mllib(sc, likes):
    low, high = -(2**31), 2**31 - 1
    unusual = [(0, 0, -3.0), (2, 3, 0.0), (100, 3, 0.0), (4, 200, 0.0), (101, 5, -1.0)]
    ends = [(low, 2, 3.0), (high, 3, 2.0), (4, low, 1.0), (5, high, 4.0)]
    ratings = likes + unusual + ends
    rddals_result, mllib_result = (
        train_likes(sc, ratings, als, iterations=2) for als in (ALS, MLlibALS)
    )
    assert_same(rddals_result, mllib_result, 1e-4)


# ------------------------------------------------------------------ errors with MLlib's messages


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rank": 0}, "Rank of the feature matrices must be positive but got 0"),
        ({"iterations": -1}, "Number of iterations must be nonnegative but got -1"),
        ({"lambda_": -1.0}, "Regularization parameter must be nonnegative but got -1.0"),
        ({"blocks": 0}, "Number of blocks must be -1 or positive but got 0"),
        ({"blocks": -2}, "Number of blocks must be -1 or positive but got -2"),
    ],
)
def test_settings_out_of_range_raise(sc, wrong, words):
    settings = {"ratings": sc.parallelize(FEW, 1), "rank": 2, **wrong}
    for train in (ALS.train, ALS.trainImplicit):
        with pytest.raises(SettingError, match=words):
            train(**settings)
    with pytest.raises(Exception, match=words):
        MLlibALS.train(**settings)


@pytest.mark.parametrize("als", [ALS, MLlibALS], ids=["rddals", "MLlib"])
def test_no_ratings_raise(sc, als):
    for train in (als.train, als.trainImplicit):
        with pytest.raises(ValueError, match="RDD is empty"):
            train(sc.parallelize([], 2), 2)


@pytest.mark.parametrize("ratings", [FEW, None, "ratings.csv"], ids=["list", "None", "str"])
def test_ratings_that_are_not_an_rdd_raise(ratings):
    words = "Ratings should be represented by either an RDD or a DataFrame, but got "
    words = re.escape(f"{words}{type(ratings)}.")
    with pytest.raises(RatingTypeError, match=words):
        ALS.train(ratings, 2)
    with pytest.raises(TypeError, match=words):
        MLlibALS.train(ratings, 2)


@pytest.mark.parametrize("element", [5, "1,2,3", None])
def test_elements_that_are_not_ratings_raise(sc, element):
    words = re.escape(f"Expect a Rating or a tuple/list, but got {type(element)}")
    ratings = sc.parallelize([element, element], 1)
    with pytest.raises(RatingTypeError, match=words):
        ALS.train(ratings, 2)
    with pytest.raises(TypeError, match=words):
        MLlibALS.train(ratings, 2)


def test_id_beyond_int32_raises(sc):
    words = "Ratings id 2147483648 exceeds max integer value of 2147483647"
    ratings = sc.parallelize([*FEW, (2**31, 1, 1.0)], 1)
    for als, error in ((ALS, RatingError), (MLlibALS, Exception)):
        with pytest.raises(error, match=words):
            als.train(ratings, 2, 1, blocks=1)


def test_smallest_and_largest_int32_ids(sc):
    low, high = ends = (-(2**31), 2**31 - 1)
    ratings = [(ends[u - 1], ends[p - 1], rating) for u, p, rating in FEW]
    model = ALS.train(sc.parallelize(ratings, 2), 1, 2, 0.001, 2, seed=3)
    assert [ids.tolist() for ids, _ in features(model)] == [[low, high]] * 2
    assert model.predict(low, high) == pytest.approx(2, abs=0.1)
    assert model.predict(high, high) == pytest.approx(4, abs=0.1)


# ------------------------------------------------------------------ one model, in both libraries

Both = namedtuple("Both", "rddals mllib")


@pytest.fixture(scope="module", params=["MLlib loads rddals", "rddals loads MLlib"])
def both(request, _spark, tmp_path_factory):
    before = set(_spark._jsc.getPersistentRDDs())
    path = str(tmp_path_factory.mktemp("models") / "model")
    ratings = _spark.parallelize(small.RATINGS, 2)
    als = ALS if request.param == "MLlib loads rddals" else MLlibALS
    model = als.trainImplicit(ratings, 3, 1, 0.1, 2, alpha=2.0, seed=8)
    model.save(_spark, path)
    if als is ALS:
        models = Both(model, MLlibModel.load(_spark, path))
    else:
        models = Both(MatrixFactorizationModel.load(_spark, path), model)
    persisted = dict(_spark._jsc.getPersistentRDDs())
    yield models
    for id_ in persisted.keys() - before:
        persisted[id_].unpersist(True)


def test_both_libraries_give_equal_factors_and_predictions(both, sc):
    assert_same(*both)
    pairs = sc.parallelize([(u, p) for u in small.USERS for p in small.PRODUCTS], 2)
    rddals_result, mllib_result = (sorted(model.predictAll(pairs).collect()) for model in both)
    assert [r[:2] for r in rddals_result] == [r[:2] for r in mllib_result]
    assert len(rddals_result) == len(small.USERS) * len(small.PRODUCTS)
    np.testing.assert_allclose(
        [r[2] for r in rddals_result], [r[2] for r in mllib_result], rtol=0, atol=1e-9
    )
    assert both.rddals.predict(-3, 90) == pytest.approx(both.mllib.predict(-3, 90), abs=1e-9)


def test_recommendations_match_mllib(both):
    rddals_result, mllib_result = (
        [
            *model.recommendProducts(7, 3),
            *model.recommendUsers(23, 99),
            *all_recommendations(model.recommendProductsForUsers(99)),
            *all_recommendations(model.recommendUsersForProducts(3)),
        ]
        for model in both
    )
    assert [r[:2] for r in rddals_result] == [r[:2] for r in mllib_result]
    np.testing.assert_allclose(
        [r[2] for r in rddals_result], [r[2] for r in mllib_result], rtol=0, atol=1e-9
    )
    n_users, n_products = len(small.USERS), len(small.PRODUCTS)
    assert len(rddals_result) == 3 + n_users + n_users * n_products + n_products * 3


def all_recommendations(recommended):
    """Return all recommendations in ascending order of their ids."""
    return [rating for _, ratings in sorted(recommended.collect()) for rating in ratings]


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("predict", (9, 23), "userId: 9 not found in the model"),
        ("predict", (7, 9), "productId: 9 not found in the model"),
        ("recommendProducts", (9, 2), "userId: 9 not found in the model"),
        ("recommendUsers", (9, 2), "productId: 9 not found in the model"),
    ],
)
def test_unknown_id_raises(both, method, arguments, words):
    with pytest.raises(UnknownIdError, match=words):
        getattr(both.rddals, method)(*arguments)
    with pytest.raises(Exception, match=words):
        getattr(both.mllib, method)(*arguments)


# ------------------------------------------------------------------ placement of features


def test_features_are_placed_by_their_partitioner(sc, stages_of):
    ratings = sc.parallelize(small.RATINGS, 2)
    model = ALS.train(ratings, 2, 1, seed=8, userBlocks=4, productBlocks=3)
    for side, blocks in ((model.userFeatures(), 4), (model.productFeatures(), 3)):
        ids_by_partition = side.keys().glom().collect()
        assert len(ids_by_partition) == side.partitioner.numPartitions
        assert sum(map(bool, ids_by_partition)) == blocks
        assert [[side.partitioner(id_) for id_ in ids] for ids in ids_by_partition] == [
            [block] * len(ids) for block, ids in enumerate(ids_by_partition)
        ]
        rows = dict(side.collect())
        for id_ in (min(rows), max(rows)):
            group = f"lookup of {id_} among {blocks} blocks"
            sc.setJobGroup(group, "")
            assert side.lookup(id_) == [rows[id_]]
            assert [stage.tasks for job in stages_of(group) for stage in job] == [1]


# ------------------------------------------------------------------ what only MLlib rejects

PLAIN = dict(rank=2, iterations=1, lambda_=1.0, blocks=2, nonnegative=False, seed=7)
MLLIB_FAILS = (Py4JError, PySparkException)


@pytest.fixture(scope="module")
def plain_model(_spark):
    model = ALS.train(_spark.parallelize(small.RATINGS, 2), **PLAIN)
    yield model
    model.unpersist()


@pytest.mark.parametrize(
    "unusual",
    [
        {"lambda_": 1},
        {"seed": 7.0},
        {"seed": 2**64 + 7},
        {"seed": 7 - 2**64},
        {"seed": np.int64(7)},
        {
            "rank": np.int32(2),
            "iterations": np.int64(1),
            "lambda_": np.float32(1),
            "blocks": np.uint8(2),
            "nonnegative": np.False_,
        },
    ],
    ids=[
        "lambda_=1",
        "float seed",
        "seed beyond 64 bits",
        "seed below them",
        "NumPy seed",
        "all NumPy",
    ],
)
def test_settings_of_other_types_give_the_same_model(sc, plain_model, unusual):
    ratings = sc.parallelize(small.RATINGS, 2)
    assert_same(ALS.train(ratings, **PLAIN | unusual), plain_model)
    with pytest.raises(MLLIB_FAILS):
        MLlibALS.train(ratings, **PLAIN | unusual)


def test_alpha_may_be_an_integer(sc):
    ratings = sc.parallelize(small.RATINGS, 2)
    one, other = (ALS.trainImplicit(ratings, 2, 1, 0.1, 2, alpha, seed=7) for alpha in (40, 40.0))
    assert_same(one, other)
    with pytest.raises(MLLIB_FAILS):
        MLlibALS.trainImplicit(ratings, 2, 1, 0.1, 2, 40, seed=7)


ROWS = {
    "arrays": np.array,
    "NumPy scalars": lambda row: (np.int64(row[0]), np.int16(row[1]), np.float32(row[2])),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_other_types_give_the_same_model(sc, plain_model, kind):
    ratings = sc.parallelize([ROWS[kind](row) for row in small.RATINGS], 2)
    assert_same(ALS.train(ratings, **PLAIN), plain_model)
    if kind == "arrays":
        with pytest.raises(TypeError, match="Expect a Rating or a tuple/list, but got"):
            MLlibALS.train(ratings, **PLAIN)


@pytest.mark.parametrize(
    ("train", "arguments", "named", "words"),
    [
        ("train", (), {}, r"missing a required argument: 'ratings'.*\(ratings, rank, iterations=5"),
        ("train", ([], 2), {"lambda": 0.1}, "'lambda'.*lambda_=0.01, blocks=-1, nonnegative=False"),
        ("trainImplicit", ([], *range(9)), {}, "too many positional.*blocks=-1, alpha=0.01"),
        ("trainImplicit", ([], 2), {"rank": 3}, "multiple values for argument 'rank'"),
    ],
)
def test_error_for_arguments_shows_their_order(train, arguments, named, words):
    with pytest.raises(TypeError, match=f"ALS.{train}: .*{words}"):
        getattr(ALS, train)(*arguments, **named)
