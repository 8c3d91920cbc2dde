"""A trained model against the dense product of its collected factors."""

import re
from array import array

import numpy as np
import pytest

import small_matrix as small
from partitioners import FunctionPartitioner, RangePartitioner
from rddals import (
    ALS,
    MatrixFactorizationModel,
    ModelReleasedError,
    Rating,
    SettingError,
    UnknownIdError,
)

RANK = 3
N_USERS, N_PRODUCTS = len(small.USERS), len(small.PRODUCTS)
HOW = {
    "shuffle": {"exchange": "shuffle", "userBlocks": 2, "productBlocks": 3},
    "broadcast": {"exchange": "broadcast", "userBlocks": 9, "productBlocks": 2},
    "join": {"exchange": "join", "userBlocks": 1, "productBlocks": 2},
    "loaded": {},
}


class Trained:
    """A model and its expected scores: the dense product of its factors in float64."""

    def __init__(self, model):
        self.model = model
        users, products = model.collected_factors()
        assert users.ids.tolist() == list(small.USERS)
        assert products.ids.tolist() == list(small.PRODUCTS)
        self.X, self.Y = users.rows.astype(float), products.rows.astype(float)
        self.dense = self.X @ self.Y.T

    def best_products(self, u, num):
        return best(self.dense[u], small.PRODUCTS, num)

    def best_users(self, p, num):
        return best(self.dense[:, p], small.USERS, num)


def best(scores, ids, num):
    order = np.argsort(-scores, kind="stable")[:num]
    return [ids[i] for i in order], scores[order]


@pytest.fixture(scope="module")
def module_sc(_spark):
    return _spark


@pytest.fixture(scope="module", params=HOW)
def trained(request, module_sc, tmp_path_factory):
    how = {"iterations": 2, "seed": 8, **HOW[request.param]}
    model = ALS.train(module_sc.parallelize(small.RATINGS, 2), RANK, lambda_=0.1, **how)
    if request.param == "loaded":
        path = str(tmp_path_factory.mktemp("models") / "model")
        model.save(module_sc, path)
        model = MatrixFactorizationModel.load(module_sc, path)
    yield Trained(model)
    model.unpersist()


@pytest.fixture(scope="module")
def shared(module_sc):
    """A trained model for tests that do not depend on its settings."""
    ratings = module_sc.parallelize(small.RATINGS, 2)
    model = ALS.train(ratings, RANK, iterations=1, lambda_=0.1, seed=8, blocks=2)
    yield Trained(model)
    model.unpersist()


def assert_ratings(result, users, products, scores):
    assert [type(r) for r in result] == [Rating] * len(result)
    assert all(list(map(type, r)) == [int, int, float] for r in result)
    assert [r.user for r in result] == list(users)
    assert [r.product for r in result] == list(products)
    np.testing.assert_allclose([r.rating for r in result], scores, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------ every method


def test_predict(trained):
    for u, p in [(0, 0), (3, 7), (6, 2)]:
        predicted = trained.model.predict(small.USERS[u], small.PRODUCTS[p])
        assert type(predicted) is float
        assert predicted == pytest.approx(trained.dense[u, p], rel=1e-9)


def test_predict_all(trained, module_sc):
    pairs = [(u, p) for u in small.USERS for p in small.PRODUCTS]
    result = sorted(trained.model.predictAll(module_sc.parallelize(pairs, 3)).collect())
    assert_ratings(result, *zip(*pairs, strict=True), trained.dense.ravel())


def test_recommend_products(trained):
    for u, num in [(0, 3), (2, N_PRODUCTS), (4, 99)]:
        products, scores = trained.best_products(u, num)
        result = trained.model.recommendProducts(small.USERS[u], num)
        assert_ratings(result, [small.USERS[u]] * len(products), products, scores)


def test_recommend_users(trained):
    for p, num in [(0, 3), (2, N_USERS), (4, 99)]:
        users, scores = trained.best_users(p, num)
        result = trained.model.recommendUsers(small.PRODUCTS[p], num)
        assert_ratings(result, users, [small.PRODUCTS[p]] * len(users), scores)


@pytest.mark.parametrize("num", [2, 99])
def test_recommend_products_for_users(trained, num):
    result = dict(trained.model.recommendProductsForUsers(num).collect())
    assert sorted(result) == list(small.USERS)
    for u, user in enumerate(small.USERS):
        products, scores = trained.best_products(u, num)
        assert type(result[user]) is tuple
        assert_ratings(result[user], [user] * len(products), products, scores)


@pytest.mark.parametrize("num", [2, 99])
def test_recommend_users_for_products(trained, num):
    result = dict(trained.model.recommendUsersForProducts(num).collect())
    assert sorted(result) == list(small.PRODUCTS)
    for p, product in enumerate(small.PRODUCTS):
        users, scores = trained.best_users(p, num)
        assert type(result[product]) is tuple
        assert_ratings(result[product], users, [product] * len(users), scores)


def test_features(trained):
    for features, ids, rows in (
        (trained.model.userFeatures(), small.USERS, trained.X),
        (trained.model.productFeatures(), small.PRODUCTS, trained.Y),
    ):
        result = dict(features.collect())
        assert sorted(result) == list(ids)
        assert {type(id_) for id_ in result} == {int}
        assert {(type(row), row.typecode) for row in result.values()} == {(array, "d")}
        np.testing.assert_array_equal([result[id_] for id_ in ids], rows)


def test_features_are_placed_by_their_partitioner(trained):
    for features, ids, rows in (
        (trained.model.userFeatures(), small.USERS, trained.X),
        (trained.model.productFeatures(), small.PRODUCTS, trained.Y),
    ):
        for place in (0, -1):
            (result,) = features.lookup(ids[place])
            assert result.tolist() == rows[place].tolist()
        assert features.lookup(1_000_003) == []
        partitions = features.glom().map(lambda pairs: [id_ for id_, _ in pairs]).collect()
        assert features.partitioner.numPartitions == len(partitions)
        for number, ids_held in enumerate(partitions):
            assert [features.partitioner(id_) for id_ in ids_held] == [number] * len(ids_held)


def test_rank(trained):
    assert trained.model.rank == RANK
    assert trained.X.shape == (N_USERS, RANK)


def test_saved_and_loaded_model_is_equal(trained, module_sc, tmp_path):
    path = str(tmp_path / "model")
    trained.model.save(module_sc, path)
    loaded = MatrixFactorizationModel.load(module_sc, path)
    again = Trained(loaded)
    np.testing.assert_array_equal(again.X, trained.X)
    np.testing.assert_array_equal(again.Y, trained.Y)
    assert (loaded.rank, loaded.history, loaded.seed) == (RANK, (), 8)
    assert loaded.predict(7, 23) == trained.model.predict(7, 23)
    loaded.unpersist()


# ------------------------------------------------------------------ lookups


@pytest.mark.parametrize(
    "partitioner",
    [
        RangePartitioner.fit(small.USERS, 3),
        FunctionPartitioner(3, lambda id_: 2 - id_ % 3),
    ],
    ids=repr,
)
def test_lookups_follow_any_partitioner(sc, partitioner):
    model = ALS.train(
        sc.parallelize(small.RATINGS, 2),
        RANK,
        iterations=1,
        seed=8,
        userPartitioner=partitioner,
        productBlocks=5,
    )
    features = model.userFeatures()
    for user in small.USERS:
        assert features.partitioner(user) == partitioner.block_of([user])[0]
    expected = dict(features.collect())
    assert features.lookup(-3) == [expected[-3]]
    assert model.predict(-3, 23) == pytest.approx(
        float(np.dot(expected[-3], model.productFeatures().lookup(23)[0]))
    )


def test_id_the_partitioner_cannot_place_is_unknown(sc):
    users, products = list(small.USERS), list(small.PRODUCTS)
    model = ALS.train(
        sc.parallelize(small.RATINGS, 2),
        RANK,
        iterations=1,
        blocks=2,
        userPartitioner=lambda user: users.index(user) % 2,
        productPartitioner=lambda product: products.index(product) % 2,
    )
    for user, product in [(999, 23), (7, 999)]:
        with pytest.raises(UnknownIdError, match="999 not found"):
            model.predict(user, product)
    pairs = [(999, 23), (7, 23), (7, 999), (7, 10), (998, 998)]
    result = model.predictAll(sc.parallelize(pairs, 2)).collect()
    assert sorted(r.product for r in result) == [10, 23]


# ------------------------------------------------------------------ unknown ids


def test_fractional_ids_raise(sc, shared):
    model, local = shared.model, shared.model.toLocal()
    for call in (model.predict, local.predict):
        assert call(7.0, "23") == call(7, 23)
        for pair in [(7.5, 23), (7, 23.5), (7, "23.5")]:
            with pytest.raises(SettingError, match=r"must be an integer but got '?\d+\.5"):
                call(*pair)
    assert model.predictAll(sc.parallelize([(7.0, 23), ("7", 10)])).count() == 2
    pairs = sc.parallelize([(7, 23)] * 100 + [(7.5, 23)], 2)
    with pytest.raises(Exception, match=r"\(7.5, 23\) is not a pair of ids"):
        model.predictAll(pairs).count()


@pytest.mark.parametrize("unknown", [0, -7, 2**31, 2**70])
def test_unknown_ids_raise(shared, unknown):
    model = shared.model
    for call, words in [
        (lambda: model.predict(unknown, 10), f"userId: {unknown} not found in the model"),
        (lambda: model.predict(7, unknown), f"productId: {unknown} not found in the model"),
        (lambda: model.recommendProducts(unknown, 2), f"userId: {unknown} not found"),
        (lambda: model.recommendUsers(unknown, 2), f"productId: {unknown} not found"),
    ]:
        with pytest.raises(UnknownIdError, match=words):
            call()


def test_ids_of_the_other_side_are_unknown(shared):
    with pytest.raises(UnknownIdError, match="userId: 90"):
        shared.model.recommendProducts(90, 1)
    with pytest.raises(UnknownIdError, match="productId: 7"):
        shared.model.recommendUsers(7, 1)


def test_numpy_ids(shared):
    assert shared.model.predict(np.int32(7), np.int64(23)) == shared.model.predict(7, 23)
    (first, *_) = shared.model.recommendProducts(np.int64(7), np.int32(2))
    assert type(first.user) is int


# ------------------------------------------------------------------ number of recommendations


def recommend_calls(model):
    return [
        lambda num: model.recommendProducts(7, num),
        lambda num: model.recommendUsers(23, num),
        lambda num: model.recommendProductsForUsers(num).collect(),
        lambda num: model.recommendUsersForProducts(num).collect(),
    ]


def test_zero_recommendations(shared):
    products, users, for_users, for_products = (call(0) for call in recommend_calls(shared.model))
    assert products == users == []
    assert dict(for_users) == dict.fromkeys(small.USERS, ())
    assert dict(for_products) == dict.fromkeys(small.PRODUCTS, ())


@pytest.mark.parametrize(
    "num", [-1, -(2**40), 2.5, "3", None, True, float("nan"), float("inf"), [2]]
)
def test_invalid_num_raises(shared, num):
    for call in recommend_calls(shared.model):
        with pytest.raises(SettingError, match="num must be a nonnegative integer but got"):
            call(num)


# ------------------------------------------------------------------ MLlib's wrapper


def test_model_describes_itself(sc):
    model = ALS.train(sc.parallelize(small.RATINGS, 2), 3, 1, seed=1)
    described = "rank=3, users=7, products=8)"
    assert repr(model) == f"MatrixFactorizationModel({described}"
    assert repr(model.toLocal()) == f"LocalModel({described}"
    model.unpersist()
    assert repr(model) == "MatrixFactorizationModel(rank=3, released)"


def test_methods_are_called_by_their_java_names(sc, shared):
    model = shared.model
    assert model.call("recommendProducts", 7, 2) == model.recommendProducts(7, 2)
    assert model.call("predict", 7, 23) == model.predict(7, 23)
    assert model.call("rank") == model.rank
    assert model.call("predict", sc.parallelize([(7, 23)])).count() == 1
    assert model.call("getUserFeatures").count() == len(small.USERS)
    assert len(model.call("wrappedRecommendProductsForUsers", 2).collect()) == len(small.USERS)
    for name in ("recommendFilms", "_settings"):
        with pytest.raises(AttributeError, match=f"no method '{name}'"):
            model.call(name)


def test_java_models_are_refused_with_a_remedy(sc, shared):
    with pytest.raises(AttributeError, match=r"no Java object.*save\(\) it and load it with"):
        shared.model._java_model.predict(7, 23)
    with pytest.raises(TypeError, match=r"pass its path to MatrixFactorizationModel\.load"):
        MatrixFactorizationModel(sc._jvm.java.util.ArrayList())


# ------------------------------------------------------------------ predictAll


@pytest.mark.parametrize("of_one", ["product", "user"])
def test_predictions_are_spread_over_the_partitions(sc, of_one):
    """All pairs share an id, so only the other one can spread them."""
    ids = range(400)
    ratings = [(u, p, 1.0 + (u * p) % 5) for u in ids for p in (0, 1 + u % 6)]
    pairs = [(u, 0) for u in ids]
    if of_one == "user":
        ratings, pairs = [(p, u, r) for u, p, r in ratings], [(p, u) for u, p in pairs]
    model = ALS.train(sc.parallelize(ratings, 2), 2, 1, blocks=8, seed=1, listeners=())
    predicted = model.predictAll(sc.parallelize(pairs, 2))
    assert max(predicted.glom().map(len).collect()) < 100
    for rating in predicted.collect()[::50]:
        assert rating.rating == pytest.approx(model.predict(rating.user, rating.product))


@pytest.mark.parametrize("bad", [(7,), (7, 23, 1.0), 7, (7, "x"), (7, None), (7, 2**70)])
def test_invalid_pair_raises(shared, sc, bad):
    # The result is lazy, so a worker raises the error.
    with pytest.raises(Exception, match=f"RatingTypeError: {re.escape(repr(bad))} is not a pair"):
        shared.model.predictAll(sc.parallelize([(7, 23), bad], 1)).collect()


def test_predict_all_drops_unknown_pairs(shared, sc):
    pairs = [
        (7, 23),
        (7, 23),
        (2, 90),
        (1, 23),
        (7, 1),
        (0, 0),
        (7, 2**40),
        (-(2**40), 10),
        (7, 23),
    ]
    result = sorted(shared.model.predictAll(sc.parallelize(pairs, 4)).collect())
    u, p = small.USERS.index, small.PRODUCTS.index
    scores = [shared.dense[u(2), p(90)]] + [shared.dense[u(7), p(23)]] * 3
    assert_ratings(result, [2, 7, 7, 7], [90, 23, 23, 23], scores)


def test_predict_all_of_no_pairs(shared, sc):
    assert shared.model.predictAll(sc.parallelize([], 3)).collect() == []
    assert shared.model.predictAll(sc.emptyRDD()).collect() == []
    assert shared.model.predictAll(sc.parallelize([(0, 0)], 1)).collect() == []


def test_pairs_of_other_types(shared, sc):
    pairs = [[7, 23], (np.int64(7), np.int32(23)), ("7", "23"), np.array([7, 23])]
    result = shared.model.predictAll(sc.parallelize(pairs, 2)).collect()
    assert {r.rating for r in result} == {shared.model.predict(7, 23)}
    assert len(result) == 4


def test_predictions_are_bitwise_equal(shared, sc):
    # A score must not depend on which method computed it.
    predicted = {
        (r.user, r.product): r.rating
        for r in shared.model.predictAll(
            sc.parallelize([(7, p) for p in small.PRODUCTS], 2)
        ).collect()
    }
    for r in shared.model.recommendProducts(7, N_PRODUCTS):
        assert r.rating == predicted[r.user, r.product] == shared.model.predict(r.user, r.product)


@pytest.mark.parametrize("bad", [(7,), (7, 23, 1.0), 7, {7, 23}, {7: 23, 8: 23}, None])
def test_first_pair_is_checked_at_once(shared, sc, bad):
    with pytest.raises(AssertionError, match="user_product should be RDD of"):
        shared.model.predictAll(sc.parallelize([bad, (7, 23)], 1))


@pytest.mark.parametrize("pairs", [[(7, 23)], (7, 23), None, "pairs"])
def test_pairs_must_be_an_rdd(shared, pairs):
    with pytest.raises(AssertionError, match="user_product should be RDD of"):
        shared.model.predictAll(pairs)


# ------------------------------------------------------------------ released models


def test_released_model_raises(sc, tmp_path):
    model = ALS.train(sc.parallelize(small.RATINGS, 2), RANK, iterations=1, seed=8)
    model.unpersist()
    model.unpersist()
    for call in (
        lambda: model.predict(7, 23),
        lambda: model.predictAll(sc.parallelize([(7, 23)])),
        lambda: model.userFeatures(),
        lambda: model.productFeatures(),
        lambda: model.recommendProducts(7, 1),
        lambda: model.recommendUsers(23, 1),
        lambda: model.recommendProductsForUsers(1),
        lambda: model.recommendUsersForProducts(1),
        lambda: model.save(sc, str(tmp_path / "model")),
        lambda: model.collected_factors(),
        lambda: ALS.train(sc.parallelize(small.RATINGS), RANK, initialModel=model),
    ):
        with pytest.raises(ModelReleasedError, match="unpersist"):
            call()
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("trained", [True, False])
def test_unpersisting_every_rdd_is_survived_or_explained(sc, tmp_path, trained):
    """Programs free memory this way. A loaded model can be computed again from its files."""
    model = ALS.train(sc.parallelize(small.RATINGS, 2), 2, 1, seed=1)
    expected = model.predict(7, 23)
    if not trained:
        model.save(sc, str(tmp_path / "model"))
        model = MatrixFactorizationModel.load(sc, str(tmp_path / "model"))
    for rdd in dict(sc._jsc.getPersistentRDDs()).values():
        rdd.unpersist()
    if not trained:
        assert model.predict(7, 23) == expected
        return
    for call in (
        lambda: model.predict(7, 23),
        lambda: model.recommendProducts(7, 2),
        lambda: model.predictAll(sc.parallelize([(7, 23)])),
        model.userFeatures,
        lambda: model.save(sc, str(tmp_path / "other")),
    ):
        with pytest.raises(
            ModelReleasedError, match="Another part of this program has unpersisted"
        ):
            call()
    assert repr(model).endswith("released)")


def test_checkpointed_model_survives_unpersisting(sc, checkpoint_dir):
    model = ALS.train(sc.parallelize(small.RATINGS, 2), 2, 1, seed=1)
    expected = model.predict(7, 23)
    for rdd in dict(sc._jsc.getPersistentRDDs()).values():
        rdd.unpersist()
    assert model.predict(7, 23) == expected
