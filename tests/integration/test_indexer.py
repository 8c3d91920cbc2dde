"""Ratings with keys instead of ids, and models that answer with keys."""

import importlib.util
import shutil

import numpy as np
import pytest
from pyspark.sql.types import DoubleType, FloatType, StringType, StructField, StructType

import small_matrix as small
from rddals import (
    ALS,
    MatrixFactorizationModel,
    ModelExistsError,
    ModelFormatError,
    ModelReleasedError,
    RatingError,
    RatingTypeError,
    SettingError,
    UnknownIdError,
)
from rddals.indexer import KeyedModel, KeyedRating, index_ratings
from rddals.indexing.keys import Coder
from rddals.rdds.frames import ArrowColumns

RANK = 3
BIG = 10**12
#: The small matrix with names for users and long numbers for products.
NAMED = tuple((f"user {user}", BIG + product, rating) for user, product, rating in small.RATINGS)
USERS = sorted({user for user, _, _ in NAMED})
PRODUCTS = sorted({product for _, product, _ in NAMED})


@pytest.fixture(scope="module")
def keyed(_spark):
    indexed = index_ratings(_spark.parallelize(NAMED, 3))
    model = indexed.keyed(ALS.train(indexed.ratings, RANK, 5, 0.1, blocks=2, seed=8))
    yield indexed, model
    indexed.unpersist()
    model.unpersist()


@pytest.fixture(scope="module")
def dense(keyed):
    """Predictions of all users and products, from the model's features."""
    _, model = keyed
    users, products = dict(model.userFeatures().collect()), dict(model.productFeatures().collect())
    assert sorted(users) == USERS
    assert sorted(products) == PRODUCTS
    return {(u, p): np.dot(users[u], products[p]) for u in users for p in products}


def ratings_of(indexed):
    """Return the ratings that training reads, as rows."""
    blocks = indexed.ratings.collect()
    columns = [(b.users.tolist(), b.products.tolist(), b.ratings.tolist()) for b in blocks]
    return [row for block in columns for row in zip(*block, strict=True)]


# ------------------------------------------------------------------ indexing


def frame(spark):
    return spark.createDataFrame(list(NAMED), ["user", "item", "rating"]).repartition(3)


def shuffled_columns(spark):
    rows = [("x", rating, product, user) for user, product, rating in NAMED]
    return spark.createDataFrame(rows, ["x", "rating", "product", "user"])


SOURCES = {
    "rows": lambda sc, spark: sc.parallelize(NAMED, 3),
    "one partition": lambda sc, spark: sc.parallelize(NAMED, 1),
    "more partitions than ratings": lambda sc, spark: sc.parallelize(NAMED, 30),
    "lists": lambda sc, spark: sc.parallelize([[u, np.int64(p), str(r)] for u, p, r in NAMED], 2),
    "a DataFrame": lambda sc, spark: frame(spark),
    "a DataFrame by names": lambda sc, spark: shuffled_columns(spark),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("arrow", ["arrow", "no arrow"])
def test_ids_are_dense_and_map_back_to_keys(sc, spark, source, arrow, monkeypatch):
    find_spec = importlib.util.find_spec
    if arrow == "no arrow":
        without = {"pyarrow"}
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda n, *a: None if n in without else find_spec(n, *a)
        )
    elif find_spec("pyarrow") is None:
        pytest.skip("needs pyarrow")
    indexed = index_ratings(SOURCES[source](sc, spark))
    assert (indexed.users, indexed.products) == (len(USERS), len(PRODUCTS))
    rows = ratings_of(indexed)
    users, products, values = zip(*rows, strict=True)
    assert sorted(set(users)) == list(range(len(USERS)))
    assert sorted(set(products)) == list(range(len(PRODUCTS)))
    keys = indexed.keys
    named = zip(keys.keys_of(0, users), keys.keys_of(1, products), values, strict=True)
    assert sorted(named) == sorted(NAMED)
    indexed.unpersist()


def test_arrow_batches_of_a_partition_share_keys():
    arrow = pytest.importorskip("pyarrow")
    parts = NAMED[:3], NAMED[3:4], NAMED[4:]
    users, items, ratings = (
        arrow.chunked_array([[row[column] for row in part] for part in parts])
        for column in range(3)
    )
    coders = Coder(), Coder()
    block = ArrowColumns(users, items, ratings).coded(coders[0].code, coders[1].code, "here")
    names = coders[0].keys(), coders[1].keys()
    columns = (block.users.tolist(), block.products.tolist(), block.ratings.tolist())
    named = [(names[0][u], names[1][p], r) for u, p, r in zip(*columns, strict=True)]
    assert named == list(NAMED)


def test_many_keys_in_many_partitions(sc):
    rng = np.random.default_rng(3)
    users, products = rng.integers(0, 3000, (2, 20_000))
    rows = [(f"u{u}", f"p{p % 500}", float(u % 5)) for u, p in zip(users, products, strict=True)]
    indexed = index_ratings(sc.parallelize(rows, 7))
    assert indexed.users == len({user for user, _, _ in rows})
    results = ratings_of(indexed)
    keys = indexed.keys
    names = keys.all_keys(0), keys.all_keys(1)
    assert sorted((names[0][u], names[1][p], r) for u, p, r in results) == sorted(rows)
    indexed.unpersist()


def test_equal_keys_get_equal_ids(sc):
    once = index_ratings(sc.parallelize(NAMED, 3))
    again = index_ratings(sc.parallelize(NAMED[::-1], 5))
    assert once.keys.all_keys(0) == again.keys.all_keys(0)
    assert sorted(ratings_of(once)) == sorted(ratings_of(again))
    once.unpersist()
    again.unpersist()


def test_ratings_are_read_once(sc, tmp_path):
    def counted(partition, rows):
        with (tmp_path / "reads").open("a") as file:
            file.write("x")
        return rows

    indexed = index_ratings(sc.parallelize(NAMED, 3).mapPartitionsWithIndex(counted))
    for _ in range(2):
        ALS.train(indexed.ratings, RANK, 1, blocks=2).unpersist()
    assert (tmp_path / "reads").read_text() == "xxx"
    indexed.unpersist()


def test_unpersist_releases_everything(sc, footprint):
    indexed = index_ratings(sc.parallelize(NAMED, 3))
    model = indexed.keyed(ALS.train(indexed.ratings, RANK, 1, blocks=2))
    score = model.predict(*NAMED[0][:2])
    indexed.unpersist()
    indexed.unpersist()
    assert model.predict(*NAMED[0][:2]) == score
    model.recommendProductsForUsers(2).count()
    model.unpersist()
    model.unpersist()
    assert not footprint.remaining("persisted RDD", "broadcast file", "thread", "accumulator")


# ------------------------------------------------------------------ queries by keys


def test_predict(keyed, dense):
    assert keyed[1].predict("user 7", BIG + 23) == pytest.approx(dense["user 7", BIG + 23])
    assert keyed[1].rank == RANK


def test_predict_all(sc, keyed, dense):
    pairs = [*dense, ("nobody", BIG + 10), ("user 7", 10), ("user 7", "x"), ("user 7", BIG + 10)]
    results = keyed[1].predictAll(sc.parallelize(pairs, 3)).collect()
    assert len(results) == len(dense) + 1
    assert all(type(rating) is KeyedRating for rating in results)
    for rating in results:
        assert rating.rating == pytest.approx(dense[rating.user, rating.product])


def test_recommend(keyed, dense):
    best = sorted(PRODUCTS, key=lambda product: -dense["user 7", product])
    results = keyed[1].recommendProducts("user 7", 3)
    assert [(r.user, r.product) for r in results] == [("user 7", product) for product in best[:3]]
    remaining = keyed[1].recommendProducts("user 7", 9, exclude=[best[0], 0], candidates=best[:3])
    assert [r.product for r in remaining] == best[1:3]
    users = sorted(USERS, key=lambda user: -dense[user, BIG + 23])
    results = keyed[1].recommendUsers(BIG + 23, 2)
    assert [(r.user, r.product) for r in results] == [(user, BIG + 23) for user in users[:2]]
    assert results[0].rating == pytest.approx(dense[users[0], BIG + 23])


@pytest.mark.parametrize("source", ["rows", "a DataFrame by names"])
def test_recommend_for_all(sc, spark, keyed, dense, source):
    _, model = keyed
    seen = {(user, product) for user, product, _ in NAMED}
    more = [("nobody", BIG + 10, 1.0), (USERS[0], 10, 1.0)]
    ratings = SOURCES[source](sc, spark)
    ratings = ratings.union(sc.parallelize(more)) if source == "rows" else ratings
    results = dict(model.recommendProductsForUsers(99, excludeSeen=ratings).collect())
    assert sorted(results) == USERS
    for user, ratings in results.items():
        remaining = [product for product in PRODUCTS if (user, product) not in seen]
        assert [r.product for r in ratings] == sorted(remaining, key=lambda p: -dense[user, p])
        assert {r.user for r in ratings} == {user}
    results = dict(model.recommendUsersForProducts(1, candidates=USERS[:3]).collect())
    for product, (rating,) in results.items():
        assert rating.user == max(USERS[:3], key=lambda user: dense[user, product])
        assert rating.product == product


def test_similar(keyed):
    ids = keyed[1].model.similarProducts(keyed[0].keys.ids_of(1, [BIG + 23])[0], 3)
    keys = keyed[0].keys.keys_of(1, [id_ for id_, _ in ids])
    assert keyed[1].similarProducts(BIG + 23, 3) == list(
        zip(keys, (score for _, score in ids), strict=True)
    )
    assert "user 7" not in dict(keyed[1].similarUsers("user 7", 99))


def test_unknown_keys(keyed):
    model = keyed[1]
    for call in (
        lambda: model.predict("nobody", BIG + 10),
        lambda: model.recommendProducts("nobody", 2),
        lambda: model.recommendUsers(10, 2),
        lambda: model.similarProducts(BIG + 99, 2),
    ):
        with pytest.raises(UnknownIdError, match=r"(user|product) .* not found in the model"):
            call()
    with pytest.raises(SettingError, match="user: 7 is not a user key: those are strings"):
        model.recommendProducts(7, 1, fallback="popular")
    with pytest.raises(
        SettingError, match=r"exclude: '10' is not a product key: those are integers; pass one"
    ):
        model.recommendProducts("user 7", 1, exclude=[BIG + 10, "10"])
    popular = model.recommendProducts("nobody", 1, fallback="popular")
    assert [(r.user, r.product) for r in popular] == [("nobody", BIG + 23)]


# ------------------------------------------------------------------ files


def test_exclude_seen_takes_keys(sc, keyed):
    indexed, model = keyed
    for seen, words in (
        (indexed, "an RDD or a DataFrame, but got .*IndexedRatings"),
        (indexed.ratings, r"excludeSeen holds RatingBlock.*; pass ratings \(user key, product key"),
        (
            sc.parallelize([("user 7", BIG)]),
            r"excludeSeen holds \('user 7', 1000000000000\) \(partition",
        ),
        (list(NAMED), "an RDD or a DataFrame, but got <class 'list'>"),
    ):
        with pytest.raises(RatingTypeError, match=words):
            model.recommendProductsForUsers(2, excludeSeen=seen)
    later = sc.parallelize([("user 7", BIG, 1.0), ("user 7", None, 1.0)], 1)
    with pytest.raises(RatingTypeError, match=r"None, 1.0\) \(partition 0, row 1\); pass"):
        model.recommendUsersForProducts(2, excludeSeen=later)
    for value in (float("nan"), 1e39, "many", None):
        unrated = sc.parallelize([("user 7", BIG, value)], 1)
        with pytest.raises(RatingTypeError, match=r"excludeSeen holds .* row 0\); pass ratings"):
            model.recommendProductsForUsers(2, excludeSeen=unrated)
    unfiltered = model.recommendProductsForUsers(2, excludeSeen=sc.emptyRDD())
    assert unfiltered.collect() == model.recommendProductsForUsers(2).collect()


@pytest.mark.parametrize("bad", [("user 7",), None, (None, BIG), (["user 7"], BIG)])
def test_invalid_pair_raises(sc, keyed, bad):
    with pytest.raises(Exception, match=r"RatingTypeError: .* is not a pair of keys; pass an RDD"):
        keyed[1].predictAll(sc.parallelize([("user 7", BIG + 10), bad], 1)).collect()
    with pytest.raises(AssertionError, match="user_product should be RDD of"):
        keyed[1].predictAll(sc.parallelize([bad], 1))


def test_model_of_other_ratings_raises(sc, keyed, tmp_path):
    indexed, model = keyed
    grown = model.model.foldIn(sc.parallelize([(1000, 0, 5.0)]), lambda_=0.1)
    with pytest.raises(SettingError, match="knows user id 1000, they have 7"):
        indexed.keyed(grown)
    model.save(sc, str(tmp_path / "model"))
    shutil.rmtree(tmp_path / "model" / "data")
    shutil.rmtree(tmp_path / "model" / "metadata")
    with pytest.raises(ModelExistsError, match=r"There is .*/keys already"):
        model.save(sc, str(tmp_path / "model"))
    grown.save(sc, str(tmp_path / "model"))
    with pytest.raises(ModelFormatError, match="do not belong together: it knows user id 1000"):
        KeyedModel.load(sc, str(tmp_path / "model"))
    (tmp_path / "file").touch()
    with pytest.raises(ModelExistsError, match="file is a file: save elsewhere"):
        model.save(sc, str(tmp_path / "file"))
    grown.unpersist()


@pytest.fixture
def saved(sc, keyed, tmp_path):
    path = tmp_path / "model"
    keyed[1].save(sc, str(path))
    return path


def test_saved_and_loaded_model_is_equal(sc, keyed, saved):
    loaded = KeyedModel.load(sc, str(saved))
    for user in USERS:
        assert loaded.recommendProducts(user, 3) == keyed[1].recommendProducts(user, 3)
    assert loaded.similarProducts(BIG + 23, 2) == keyed[1].similarProducts(BIG + 23, 2)
    loaded.unpersist()
    alone = MatrixFactorizationModel.load(sc, str(saved))
    assert len(alone.collected_factors()[0].ids) == len(USERS)
    alone.unpersist()


def test_files_without_keys_raise(sc, keyed, saved, footprint):
    shutil.rmtree(saved / "keys" / "user")
    with pytest.raises(ModelFormatError, match="holds no keys that can be read"):
        KeyedModel.load(sc, str(saved))
    shutil.copytree(saved / "keys" / "product", saved / "keys" / "user")
    largest = max((saved / "keys" / "product").glob("*.parquet"), key=lambda f: f.stat().st_size)
    largest.unlink()
    with pytest.raises(ModelFormatError, match="keys/product does not hold the keys"):
        KeyedModel.load(sc, str(saved))
    assert not footprint.remaining("persisted RDD")


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([], RatingError, "RDD is empty"),
        # "a" and 3 are in one of the two buckets, 5 in the other. Equal texts share a bucket.
        ([("a", 1, 2.0), (3, 1, 2.0)], RatingError, r"user keys are strings \('a'\) and integers"),
        ([("a", 1, 2.0), (5, 1, 2.0)], RatingError, r"strings \('a'\) and integers \(5\); convert"),
        ([("a", 3, 2.0), ("a", "3", 2.0)], RatingError, r"product .* \('3'\) and integers \(3\)"),
        ([("a", None, 2.0)], RatingError, "row 0: product key None is neither a string nor an"),
        ([("a", True, 2.0)], RatingError, "row 0: product key True is neither a string nor an"),
        ([("a\ud800", 1, 2.0)], RatingError, "is not valid Unicode text"),
        (["ab5"], RatingTypeError, r"row 0\): 'ab5'"),
        ([("a", 1, [2.0])], RatingError, r"row 0: rating \[2\.0\] is not a number"),
        ([("a", 1.5, 2.0)], RatingError, "product key 1.5 is neither"),
        ([(2**70, 1, 2.0)], RatingError, f"key {2**70} does not fit 64 bits"),
        ([("a", 1)], RatingError, r"partition 1, row 0: \('a', 1\) is not a rating"),
        (["a,1,2.0"], RatingTypeError, r"partition 1, row 0\): 'a,1,2.0'"),
        ([("a", 1, "good")], RatingError, "partition 1, row 0: rating 'good' is not a number"),
        ([("a", 1, float("nan"))], RatingError, "rating nan is not a finite"),
        ([(["a"], 1, 2.0)], RatingError, r"partition 1, row 0: user key \['a'\] is neither"),
    ],
)
def test_failed_indexing_releases_everything(sc, footprint, rows, error, words):
    with pytest.raises(error, match=words):
        index_ratings(sc.parallelize(rows, 2))
    assert not footprint.remaining()


def test_null_and_float_keys_raise(spark):
    schema = [StructField("user", StringType()), StructField("item", StringType())]
    rows = [("a", "b", 1.0), (None, "b", 2.0)]
    frame = spark.createDataFrame(rows, StructType([*schema, StructField("rating", DoubleType())]))
    with pytest.raises(RatingError, match="key None is neither"):
        index_ratings(frame)
    with pytest.raises(RatingTypeError, match="the user, is of type double; cast it to an integer"):
        index_ratings(frame, userCol="rating", ratingCol="user")
    floats = StructType([StructField(n, FloatType()) for n in ("user", "item", "rating")])
    with pytest.raises(RatingTypeError, match="the user, is of type float"):
        index_ratings(spark.createDataFrame([(1.0, 2.0, 3.0)], floats))


def test_invalid_arguments_raise(sc, keyed):
    with pytest.raises(RatingTypeError, match="an RDD or a DataFrame, but got <class 'list'>"):
        index_ratings(list(NAMED))
    with pytest.raises(SettingError, match="userCol='user' name columns of a DataFrame"):
        index_ratings(sc.parallelize(NAMED), userCol="user")
    with pytest.raises(SettingError, match="model must be a MatrixFactorizationModel of rddals"):
        keyed[0].keyed("model")
    with pytest.raises(SettingError, match="exclude must be a sequence of keys but got 'user 7'"):
        keyed[1].recommendUsers(BIG + 23, 2, exclude="user 7")
    with pytest.raises(SettingError, match=r"user 1\.5 is neither a string nor an integer"):
        keyed[1].recommendProducts(1.5, 2)


def test_empty_ratings_raise(sc, spark):
    for empty in (sc.emptyRDD(), frame(spark).limit(0)):
        with pytest.raises(RatingError, match="RDD is empty: there is nothing to index"):
            index_ratings(empty)


def test_released_ratings_raise(sc):
    indexed = index_ratings(sc.parallelize(NAMED, 2))
    model = ALS.train(indexed.ratings, RANK, 0, blocks=2)
    indexed.unpersist()
    for call in (lambda: indexed.ratings, lambda: indexed.keyed(model)):
        with pytest.raises(ModelReleasedError, match="index them again"):
            call()
    model.unpersist()


def test_released_model_raises(sc):
    indexed = index_ratings(sc.parallelize(NAMED, 2))
    model = indexed.keyed(ALS.train(indexed.ratings, RANK, 0, blocks=2))
    model.unpersist()
    with pytest.raises(ModelReleasedError, match="unpersist"):
        model.predict("user 7", BIG + 23)
    indexed.unpersist()
