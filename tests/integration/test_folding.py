"""Users folded into a model, against the half-step of training and the dense reference."""

import shutil

import numpy as np
import pytest
from pyspark.sql.functions import col

import dense_reference
import small_matrix as small
from partitioners import RangePartitioner
from rddals import (
    ALS,
    InconsistentRatingsError,
    MatrixFactorizationModel,
    RatingError,
    SettingError,
    SingularSystemError,
    UnknownIdError,
)

RANK = 3
TRAIN = {
    "explicit": (ALS.train, {"lambda_": 0.1}),
    "implicit": (ALS.trainImplicit, {"lambda_": 0.1, "alpha": 3.0}),
    "nonnegative": (ALS.train, {"lambda_": 0.1, "nonnegative": True}),
}
#: Ratings of two new users, and other ratings of an existing one.
NEW = ((500, 10, 5.0), (500, 23, 1.0), (-9, 57, 4.0), (-9, 90, 2.0), (-9, 11, 3.0), (7, 15, 2.0))


def trained(kind, sc, ratings=small.RATINGS, **settings):
    train, own = TRAIN[kind]
    how = {"iterations": 2, "seed": 8, "userBlocks": 2, "productBlocks": 3, **own, **settings}
    return train(sc.parallelize(ratings, 2), RANK, **how)


@pytest.fixture(scope="module", params=TRAIN)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(_spark, kind):
    model = trained(kind, _spark)
    yield model
    model.unpersist()


def rows(model):
    users, _ = model.collected_factors()
    return dict(zip(users.ids.tolist(), users.rows, strict=True))


def test_fold_in_equals_the_half_step_of_training(sc, kind, model):
    others = {2, -3, 40}
    again = [(u + 1000, p, r) for u, p, r in small.RATINGS if u in others]
    grown = model.foldIn(sc.parallelize(again, 3))
    before, after = rows(model), rows(grown)
    assert sorted(after) == sorted([*before, *(user + 1000 for user in others)])
    for user in others:
        np.testing.assert_allclose(after[user + 1000], before[user], atol=1e-6)
    for user in before:
        np.testing.assert_array_equal(after[user], before[user])
    grown.unpersist()


def test_new_and_changed_users_match_the_reference(sc, kind, model):
    grown = model.foldIn(sc.parallelize(NEW, 2))
    _, products = model.collected_factors()
    users = sorted({user for user, _, _ in NEW})
    expected = dense_reference.half_step(
        np.array([users.index(user) for user, _, _ in NEW]),
        products.find(np.array([product for _, product, _ in NEW]))[0],
        np.array([rating for _, _, rating in NEW]),
        products.rows.astype(float),
        len(users),
        **TRAIN[kind][1],
    )
    actual = rows(grown)
    np.testing.assert_allclose([actual[user] for user in users], expected, atol=1e-5)
    assert not np.allclose(actual[7], rows(model)[7], atol=1e-2)
    grown.unpersist()


def test_fold_in_of_1000_held_out_users(sc, spark, kind, tmp_path):
    """Their rows equal those of a training that includes them."""
    rng = np.random.default_rng(6)
    users = np.repeat(np.arange(2500), rng.integers(1, 30, 2500))
    products = (rng.random(len(users)) ** 2 * 400).astype(int)
    stars = rng.integers(1, 11, len(users)) / 2
    full = trained(kind, sc, [(users, products, stars)])
    full.save(sc, str(tmp_path / "full"))
    held_out = rng.permutation(2500)[:1000]

    shutil.copytree(tmp_path / "full", tmp_path / "part")
    rest = spark.read.parquet(str(tmp_path / "full/data/user")).filter(
        ~col("id").isin(held_out.tolist())
    )
    rest.write.mode("overwrite").parquet(str(tmp_path / "part/data/user"))
    part = MatrixFactorizationModel.load(sc, str(tmp_path / "part"))
    assert len(rows(part)) == 1500

    selected = np.isin(users, held_out)
    grown = part.foldIn(sc.parallelize([(users[selected], products[selected], stars[selected])]))
    expected, actual = rows(full), rows(grown)
    assert actual.keys() == expected.keys()
    worst = max(np.abs(actual[user] - expected[user]).max() for user in held_out.tolist())
    assert worst < 1e-6
    for model in (full, part, grown):
        model.unpersist()


def test_folded_model_supports_every_method(sc, kind, model, tmp_path):
    grown = model.foldIn(sc.parallelize(NEW, 2))
    score = grown.predict(500, 23)
    assert [r.rating for r in grown.recommendProducts(500, 99) if r.product == 23] == [score]
    assert dict(grown.recommendProductsForUsers(1).collect()).keys() == rows(grown).keys()
    assert grown.userFeatures().lookup(500)[0].tolist() == rows(grown)[500].tolist()
    grown.save(sc, str(tmp_path / "grown"))
    loaded = MatrixFactorizationModel.load(sc, str(tmp_path / "grown"))
    assert loaded.predict(500, 23) == score
    twice = loaded.foldIn(sc.parallelize([(501, p, r) for u, p, r in NEW if u == 500]))
    np.testing.assert_allclose(rows(twice)[501], rows(grown)[500], atol=1e-6)
    with pytest.raises(UnknownIdError):
        model.predict(500, 23)
    for one in (twice, loaded, grown):
        one.unpersist()


def test_models_sharing_products_are_released_separately(sc, footprint):
    model = trained("explicit", sc)
    grown = model.foldIn(sc.parallelize(NEW, 2))
    score = grown.predict(500, 23)
    model.unpersist()
    model.unpersist()
    assert grown.predict(500, 23) == score
    again = grown.foldIn(sc.parallelize([(501, 10, 5.0), (501, 23, 1.0)]))
    grown.unpersist()
    assert again.predict(501, 23) == pytest.approx(score, abs=1e-6)
    assert again.predict(500, 23) == score
    again.unpersist()
    assert not footprint.remaining()


@pytest.mark.long
def test_repeated_fold_in(sc, footprint):
    model = trained("explicit", sc)
    for user in range(1000, 1040):
        grown = model.foldIn(sc.parallelize([(user, 10, 4.0), (user, 15, 2.0)], 2))
        model.unpersist()
        model = grown
    assert len(rows(model)) == len(small.USERS) + 40
    assert model.predict(1000, 10) == pytest.approx(model.predict(1039, 10), abs=1e-6)
    model.unpersist()
    assert not footprint.remaining()


def test_fold_in_with_any_partitioner(sc):
    placed = {"userPartitioner": RangePartitioner.fit(small.USERS, 2)}
    plain, ranged = trained("explicit", sc), trained("explicit", sc, **placed)
    plain_rows, ranged_rows = (
        rows(model.foldIn(sc.parallelize(NEW, 2))) for model in (plain, ranged)
    )
    for user in plain_rows:
        np.testing.assert_allclose(plain_rows[user], ranged_rows[user], atol=1e-4)


@pytest.mark.parametrize("duplicates", ["last", "mean", "sum"])
def test_duplicates_are_treated_as_in_training(sc, duplicates):
    model = trained("explicit", sc, duplicates=duplicates)
    several = [(500, 10, 1.0), (500, 23, 2.0), (500, 10, 4.0)]
    one = {"last": 4.0, "mean": 2.5, "sum": 5.0}[duplicates]
    once = model.foldIn(sc.parallelize([(500, 10, one), (500, 23, 2.0)]))
    np.testing.assert_allclose(
        rows(model.foldIn(sc.parallelize(several, 2)))[500], rows(once)[500], atol=1e-6
    )
    retained = rows(model.foldIn(sc.parallelize(several, 2), duplicates="keep"))[500]
    assert not np.allclose(retained, rows(once)[500], atol=1e-3)


def test_mllib_model_needs_its_training_settings(sc, tmp_path):
    from pyspark.mllib.recommendation import ALS as MLlibALS

    ratings = sc.parallelize(small.RATINGS, 2)
    mllib_model = MLlibALS.train(ratings, RANK, 3, 0.1, blocks=2, seed=5)
    mllib_model.save(sc, str(tmp_path / "model"))
    model = MatrixFactorizationModel.load(sc, str(tmp_path / "model"))
    with pytest.raises(SettingError, match=r"without its training settings; pass lambda_"):
        model.foldIn(ratings)
    grown = model.foldIn(ratings, lambda_=0.1)
    known = rows(model)
    for user, row in rows(grown).items():
        np.testing.assert_allclose(row, known[user], atol=1e-5)
    implicit = model.foldIn(ratings, lambda_=0.1, alpha=3.0)
    assert not np.allclose(rows(implicit)[7], known[7], atol=1e-2)
    for one in (model, grown, implicit):
        one.unpersist()


# ------------------------------------------------------------------ errors


def test_unknown_products_raise_or_are_dropped(sc, footprint):
    model = trained("explicit", sc)
    ratings = sc.parallelize([*NEW, (500, 777, 5.0), (501, 777, 5.0)], 2)
    with pytest.raises(UnknownIdError, match=r"productId: 777 not found .* unknownProducts='drop'"):
        model.foldIn(ratings)
    dropped = model.foldIn(ratings, unknownProducts="drop")
    whole = model.foldIn(sc.parallelize(NEW, 2))
    expected, actual = rows(whole), rows(dropped)
    assert actual.keys() == expected.keys()
    np.testing.assert_allclose(actual[500], expected[500], atol=1e-6)
    whole.unpersist()
    dropped.unpersist()
    # No ratings of users 500 and 7 remain: neither is added or changed.
    unknown = sc.parallelize([(500, 777, 5.0), (7, 777, 1.0)], 1)
    same = model.foldIn(unknown, unknownProducts="drop")
    model.unpersist()
    assert rows(same).keys() == expected.keys() - {500, -9}
    same.unpersist()
    assert not footprint.remaining()


@pytest.mark.parametrize(
    ("ratings", "how", "error", "words"),
    [
        ([], {}, RatingError, "RDD is empty: there is nothing to fold in"),
        ([(500, 10, float("nan"))], {}, RatingError, "row 0: rating nan"),
        ([("ann", 10, 5.0)], {"unknownProducts": "drop"}, RatingError, "user id 'ann'"),
        ([(500, 10, 5.0)], {"unknownProducts": "skip"}, SettingError, "'raise' or 'drop' but got"),
        ([(500, 10, 5.0)], {"lambda_": -1}, SettingError, "must be nonnegative but got -1"),
        ([(500, 10, 5.0)], {"duplicates": "first"}, SettingError, "duplicates must be"),
        ([(500, 10, 5.0)], {"alpha": 2.0}, SettingError, "alpha=2.0 is for implicit feedback"),
        ([(500, 10, 5.0)], {"lambda_": 0}, SingularSystemError, "1 ids have too few"),
    ],
)
def test_failed_fold_in_releases_everything(sc, footprint, ratings, how, error, words):
    model = trained("explicit", sc)
    footprint.baseline |= footprint.current()
    with pytest.raises(error, match=words):
        model.foldIn(sc.parallelize(ratings, 2), **how)
    assert not footprint.remaining()
    model.unpersist()


def test_changing_ratings_are_detected(sc, tmp_path):
    model = trained("explicit", sc)
    counter = tmp_path / "counter"

    def different(_, rows):
        with counter.open("a") as file:
            file.write("x")
        return ((u, p, r + len(counter.read_text())) for u, p, r in rows)

    changing = sc.parallelize(NEW, 2).mapPartitionsWithIndex(different)
    try:
        grown = model.foldIn(changing)
    except InconsistentRatingsError:
        return
    assert set(rows(grown)) == {*small.USERS, 500, -9}
