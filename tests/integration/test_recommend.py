"""Recommendations beyond MLlib's, beside the dense product of the factors."""

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
    """Scores of all users and products, by their ids."""
    users, products = model.collected_factors()
    scores = users.rows.astype(float) @ products.rows.T.astype(float)
    return {
        (user, product): scores[u, p]
        for u, user in enumerate(users.ids.tolist())
        for p, product in enumerate(products.ids.tolist())
    }


def ranked(scores, allowed, num):
    """The best of some ids, best first; `scores` by id."""
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
def test_products_that_are_left_out(model, dense, exclude, candidates):
    scores = of_user(dense, 12)
    allowed = set(small.PRODUCTS) if candidates is None else set(candidates) & set(small.PRODUCTS)
    expected = ranked(scores, allowed - set(exclude), 3)
    found = model.recommendProducts(12, 3, exclude=exclude, candidates=candidates)
    assert [rating.product for rating in found] == expected
    assert [rating.rating for rating in found] == pytest.approx([scores[p] for p in expected])
    assert found == model.toLocal().recommend(12, 3, exclude=exclude, candidates=candidates)


def test_users_that_are_left_out(model, dense):
    scores = of_product(dense, 23)
    found = model.recommendUsers(23, 2, exclude=[7], candidates=[-3, 7, 40, 31])
    assert [rating.user for rating in found] == ranked(scores, {-3, 40, 31}, 2)
    assert {rating.product for rating in found} == {23}


@pytest.mark.parametrize("num", [2, 99])
@pytest.mark.parametrize("candidates", [None, [10, 23, 42, 60, 999]])
def test_nobody_is_recommended_what_they_have_seen(sc, model, dense, num, candidates):
    seen = sc.parallelize([*small.RATINGS, (12345, 10, 1.0), (7, 12345, 1.0)], 3)
    found = dict(
        model.recommendProductsForUsers(num, excludeSeen=seen, candidates=candidates).collect()
    )
    assert found.keys() == set(small.USERS)
    allowed = set(small.PRODUCTS) & set(candidates or small.PRODUCTS)
    for user, ratings in found.items():
        expected = ranked(of_user(dense, user), allowed - SEEN[user], num)
        assert [rating.product for rating in ratings] == expected


def test_no_product_is_recommended_to_who_has_seen_it(sc, model, dense):
    seen = sc.parallelize(small.RATINGS, 2)
    for product, ratings in model.recommendUsersForProducts(3, excludeSeen=seen).collect():
        allowed = set(small.USERS) - RATED_BY[product]
        expected = ranked(of_product(dense, product), allowed, 3)
        assert [rating.user for rating in ratings] == expected


def test_what_was_seen_comes_in_a_dataframe_too(spark, model):
    frame = spark.createDataFrame(list(small.RATINGS), ["user", "product", "rating"])
    found = dict(model.recommendProductsForUsers(99, excludeSeen=frame).collect())
    assert {user: len(ratings) for user, ratings in found.items()} == {
        user: len(small.PRODUCTS) - len(seen) for user, seen in SEEN.items()
    }


def test_nothing_seen_yet(sc, model):
    plain = model.recommendProductsForUsers(3).collect()
    assert model.recommendProductsForUsers(3, excludeSeen=sc.emptyRDD()).collect() == plain


def test_what_was_seen_is_read_in_the_call(sc, footprint):
    model = ALS.train(sc.parallelize(small.RATINGS, 2), RANK, 1, 0.1, blocks=2, seed=8)
    with pytest.raises(RatingError, match="partition 1, row 0: user id 'ann'"):
        model.recommendProductsForUsers(
            2, excludeSeen=sc.parallelize([(7, 10, 1.0), ("ann", 10, 1.0)], 2)
        )
    found = model.recommendProductsForUsers(2, excludeSeen=sc.parallelize(small.RATINGS, 2))
    assert found.count() == len(small.USERS)
    model.unpersist()
    assert not footprint.left()


def test_similar_products_and_users(model):
    for similar, (ids, rows), id_ in (
        (model.similarProducts, factors(model)[1], 23),
        (model.similarUsers, factors(model)[0], 7),
    ):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = dict(zip(ids, unit @ unit[ids.index(id_)], strict=True))
        expected = ranked(cosines, set(ids) - {id_}, 4)
        found = similar(id_, 4)
        assert [other for other, _ in found] == expected
        assert [score for _, score in found] == pytest.approx([cosines[o] for o in expected])
        assert len(similar(id_, 99)) == len(ids) - 1


def factors(model):
    return [(side.ids.tolist(), side.rows.astype(float)) for side in model.collected_factors()]


# ------------------------------------------------------------------ who or what is not known


def test_popular_products_for_a_stranger(model, dense):
    # Product 23 has four ratings; 10, 15, 42 (three each) come by id; then two: 11, 57, 60; 90 one.
    counts = {product: len(users) for product, users in RATED_BY.items()}
    expected = sorted(small.PRODUCTS, key=lambda product: (-counts[product], product))
    found = model.recommendProducts(999, 99, fallback="popular")
    assert [rating.product for rating in found] == expected
    assert {rating.user for rating in found} == {999}
    means = [np.mean([dense[user, product] for user in small.USERS]) for product in expected]
    assert [rating.rating for rating in found] == pytest.approx(means, abs=1e-6)
    assert found[:3] == model.recommendProducts(999, 3, fallback="popular")
    assert found == model.toLocal().recommend(999, 99, fallback="popular")
    chosen = {"exclude": [23], "candidates": [60, 23, 90]}
    left = model.recommendProducts(999, 2, **chosen, fallback="popular")
    assert [rating.product for rating in left] == [60, 90]


def test_somebody_known_is_no_stranger(model):
    assert model.recommendProducts(7, 3, fallback="popular") == model.recommendProducts(7, 3)


def test_active_users_for_a_new_product(model):
    found = model.recommendUsers(999, 3, fallback="popular")
    counts = {user: len(products) for user, products in SEEN.items()}
    expected = sorted(small.USERS, key=lambda user: (-counts[user], user))[:3]
    assert [rating.user for rating in found] == expected


def test_what_is_popular_is_saved(sc, model, tmp_path):
    model.save(sc, str(tmp_path / "model"))
    loaded = MatrixFactorizationModel.load(sc, str(tmp_path / "model"))
    wanted = model.recommendProducts(999, 5, fallback="popular")
    found = loaded.recommendProducts(999, 5, fallback="popular")
    assert [r.product for r in found] == [r.product for r in wanted]
    loaded.unpersist()


def test_a_model_of_mllib_goes_by_the_average_user(sc, model, tmp_path):
    from pyspark.mllib.recommendation import ALS as MLlibALS

    ratings = sc.parallelize(small.RATINGS, 2)
    MLlibALS.train(ratings, RANK, 3, 0.1, blocks=2, seed=5).save(sc, str(tmp_path / "model"))
    loaded = MatrixFactorizationModel.load(sc, str(tmp_path / "model"))
    found = loaded.recommendProducts(999, 99, fallback="popular")
    scores = [rating.rating for rating in found]
    assert scores == sorted(scores, reverse=True)
    assert sorted(rating.product for rating in found) == list(small.PRODUCTS)
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
def test_bad_arguments_are_named(model, arguments, words):
    with pytest.raises(SettingError, match=words):
        model.recommendProducts(7, 2, **arguments)
    with pytest.raises(SettingError, match=words):
        model.recommendUsers(23, 2, **arguments)
