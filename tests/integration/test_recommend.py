"""Recommendations beyond MLlib's API, against the dense product of the factors."""

import numpy as np
import pytest

import small_matrix as small
from rddals import ALS, MatrixFactorizationModel, RatingError, SettingError

RANK = 3
SEEN = {user: {p for u, p, _ in small.RATINGS if u == user} for user in small.USERS}
RATED_BY = {product: {u for u, p, _ in small.RATINGS if p == product} for product in small.PRODUCTS}


@pytest.fixture(scope="module")
def model(_spark):
    model = ALS.train(_spark.parallelize(small.RATINGS, 2), RANK, 3, 0.1, blocks=2, seed=8)
    yield model
    model.unpersist()


@pytest.fixture(scope="module")
def dense(model):
    """Scores of all pairs of user and product ids."""
    users, products = model.collected_factors()
    scores = users.rows.astype(float) @ products.rows.T.astype(float)
    return {
        (user, product): scores[u, p]
        for u, user in enumerate(users.ids.tolist())
        for p, product in enumerate(products.ids.tolist())
    }


def ranked(scores, allowed, num):
    """Return the best of the allowed ids, best first."""
    return sorted(allowed, key=lambda id_: (-scores[id_], id_))[:num]


def of_user(dense, user):
    return {product: score for (u, product), score in dense.items() if u == user}


def of_product(dense, product):
    return {user: score for (user, p), score in dense.items() if p == product}


@pytest.mark.parametrize(
    ("exclude", "candidates"),
    [
        ([], None),
        ([23, 10, 999], None),
        ([], [11, 60, 10**6]),
        (np.array([60]), (60, 57, 10)),
        (list(small.PRODUCTS), None),
        ([], []),
    ],
)
def test_excluded_products(model, dense, exclude, candidates):
    scores = of_user(dense, 12)
    allowed = set(small.PRODUCTS) if candidates is None else set(candidates) & set(small.PRODUCTS)
    expected = ranked(scores, allowed - set(exclude), 3)
    result = model.recommendProducts(12, 3, exclude=exclude, candidates=candidates)
    assert [rating.product for rating in result] == expected
    assert [rating.rating for rating in result] == pytest.approx([scores[p] for p in expected])
    assert result == model.toLocal().recommend(12, 3, exclude=exclude, candidates=candidates)


def test_excluded_users(model, dense):
    scores = of_product(dense, 23)
    result = model.recommendUsers(23, 2, exclude=[7], candidates=[-3, 7, 40, 31])
    assert [rating.user for rating in result] == ranked(scores, {-3, 40, 31}, 2)
    assert {rating.product for rating in result} == {23}


@pytest.mark.parametrize("num", [2, 99])
@pytest.mark.parametrize("candidates", [None, [10, 23, 42, 60, 999]])
def test_seen_products_are_not_recommended(sc, model, dense, num, candidates):
    seen = sc.parallelize([*small.RATINGS, (12345, 10, 1.0), (7, 12345, 1.0)], 3)
    result = dict(
        model.recommendProductsForUsers(num, excludeSeen=seen, candidates=candidates).collect()
    )
    assert result.keys() == set(small.USERS)
    allowed = set(small.PRODUCTS) & set(candidates or small.PRODUCTS)
    for user, ratings in result.items():
        expected = ranked(of_user(dense, user), allowed - SEEN[user], num)
        assert [rating.product for rating in ratings] == expected


def test_products_are_not_recommended_to_their_raters(sc, model, dense):
    seen = sc.parallelize(small.RATINGS, 2)
    for product, ratings in model.recommendUsersForProducts(3, excludeSeen=seen).collect():
        allowed = set(small.USERS) - RATED_BY[product]
        expected = ranked(of_product(dense, product), allowed, 3)
        assert [rating.user for rating in ratings] == expected


def test_exclude_seen_takes_a_dataframe(spark, model):
    frame = spark.createDataFrame(list(small.RATINGS), ["user", "product", "rating"])
    result = dict(model.recommendProductsForUsers(99, excludeSeen=frame).collect())
    assert {user: len(ratings) for user, ratings in result.items()} == {
        user: len(small.PRODUCTS) - len(seen) for user, seen in SEEN.items()
    }


def test_exclude_seen_of_no_ratings(sc, model):
    plain = model.recommendProductsForUsers(3).collect()
    assert model.recommendProductsForUsers(3, excludeSeen=sc.emptyRDD()).collect() == plain


def test_exclude_seen_is_read_at_once(sc, footprint):
    model = ALS.train(sc.parallelize(small.RATINGS, 2), RANK, 1, 0.1, blocks=2, seed=8)
    with pytest.raises(RatingError, match="partition 1, row 0: user id 'ann'"):
        model.recommendProductsForUsers(
            2, excludeSeen=sc.parallelize([(7, 10, 1.0), ("ann", 10, 1.0)], 2)
        )
    result = model.recommendProductsForUsers(2, excludeSeen=sc.parallelize(small.RATINGS, 2))
    assert result.count() == len(small.USERS)
    model.unpersist()
    assert not footprint.remaining()


def test_similar_products_and_users(model):
    for similar, (ids, rows), id_ in (
        (model.similarProducts, factors(model)[1], 23),
        (model.similarUsers, factors(model)[0], 7),
    ):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = dict(zip(ids, unit @ unit[ids.index(id_)], strict=True))
        expected = ranked(cosines, set(ids) - {id_}, 4)
        result = similar(id_, 4)
        assert [other for other, _ in result] == expected
        assert [score for _, score in result] == pytest.approx([cosines[o] for o in expected])
        assert len(similar(id_, 99)) == len(ids) - 1


def factors(model):
    return [(side.ids.tolist(), side.rows.astype(float)) for side in model.collected_factors()]


# ------------------------------------------------------------------ unknown ids


def test_popular_products_for_an_unknown_user(model, dense):
    # Product 23 has four ratings; 10, 15, 42 (three each) come by id; then two: 11, 57, 60; 90 one.
    counts = {product: len(users) for product, users in RATED_BY.items()}
    expected = sorted(small.PRODUCTS, key=lambda product: (-counts[product], product))
    result = model.recommendProducts(999, 99, fallback="popular")
    assert [rating.product for rating in result] == expected
    assert {rating.user for rating in result} == {999}
    means = [np.mean([dense[user, product] for user in small.USERS]) for product in expected]
    assert [rating.rating for rating in result] == pytest.approx(means, abs=1e-6)
    assert result[:3] == model.recommendProducts(999, 3, fallback="popular")
    assert result == model.toLocal().recommend(999, 99, fallback="popular")
    filters = {"exclude": [23], "candidates": [60, 23, 90]}
    best = model.recommendProducts(999, 2, **filters, fallback="popular")
    assert [rating.product for rating in best] == [60, 90]


def test_known_user_ignores_the_fallback(model):
    assert model.recommendProducts(7, 3, fallback="popular") == model.recommendProducts(7, 3)


def test_active_users_for_an_unknown_product(model):
    result = model.recommendUsers(999, 3, fallback="popular")
    counts = {user: len(products) for user, products in SEEN.items()}
    expected = sorted(small.USERS, key=lambda user: (-counts[user], user))[:3]
    assert [rating.user for rating in result] == expected


def test_popularity_is_saved(sc, model, tmp_path):
    model.save(sc, str(tmp_path / "model"))
    loaded = MatrixFactorizationModel.load(sc, str(tmp_path / "model"))
    expected = model.recommendProducts(999, 5, fallback="popular")
    result = loaded.recommendProducts(999, 5, fallback="popular")
    assert [r.product for r in result] == [r.product for r in expected]
    loaded.unpersist()


def test_mllib_model_falls_back_to_the_average_user(sc, model, tmp_path):
    from pyspark.mllib.recommendation import ALS as MLlibALS

    ratings = sc.parallelize(small.RATINGS, 2)
    MLlibALS.train(ratings, RANK, 3, 0.1, blocks=2, seed=5).save(sc, str(tmp_path / "model"))
    loaded = MatrixFactorizationModel.load(sc, str(tmp_path / "model"))
    result = loaded.recommendProducts(999, 99, fallback="popular")
    scores = [rating.rating for rating in result]
    assert scores == sorted(scores, reverse=True)
    assert sorted(rating.product for rating in result) == list(small.PRODUCTS)
    loaded.unpersist()


# ------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"exclude": "23"}, "exclude must be a sequence of integer ids but got '23'"),
        ({"candidates": 23}, "candidates must be a sequence of integer ids but got 23"),
        ({"candidates": [None]}, "candidates must be a sequence of integer ids but got"),
        ({"fallback": "mean"}, "fallback must be 'popular', or None for an error, but got 'mean'"),
    ],
)
def test_invalid_arguments_raise(model, arguments, words):
    with pytest.raises(SettingError, match=words):
        model.recommendProducts(7, 2, **arguments)
    with pytest.raises(SettingError, match=words):
        model.recommendUsers(23, 2, **arguments)
