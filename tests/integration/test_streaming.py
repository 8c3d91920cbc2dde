"""Streams of ratings against the reference, and released resources."""

import gc
import json
import threading
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from rddals import (
    ALS,
    BatchLearned,
    InconsistentRatingsError,
    MatrixFactorizationModel,
    ModelExistsError,
    ModelFormatError,
    ModelReleasedError,
    Rating,
    RatingBlock,
    RatingError,
    RatingTypeError,
    SettingError,
    StreamingALS,
    StreamingModel,
)
from rddals.blocks.start import id_start
from rddals.exchange import EXCHANGES
from rddals.streaming import levels as levels_module
from rddals.streaming.state import StreamState
from stream_reference import ReferenceStream

RANK, SEED = 3, 11
SETTINGS = {"rank": RANK, "seed": SEED, "blocks": 2, "exchange": "shuffle"}
NAN = float("nan")


def start(product):
    return 0.1 * id_start(np.array([product], np.int32), rank=RANK, seed=SEED, side=1)[0]


def reference(batches, **settings):
    stream = ReferenceStream(RANK, start, **settings)
    for batch in batches:
        stream.train([(u, p, float(np.float32(r))) for u, p, r in batch])
    return stream


def collected(model):
    """Return both sides' stored rows by id."""
    blocks = (side.table().collect(model.rank + 2) for side in model._state.sides)
    return [dict(zip(block.ids.tolist(), block.rows, strict=True)) for block in blocks]


def row_bytes(model):
    """Return the stored rows as bytes, for bitwise comparison."""
    return [{id_: row.tobytes() for id_, row in side.items()} for side in collected(model)]


def levels_of(model):
    return sum(len(side.levels) for side in model._state.sides)


def predictions(sc, model, pairs):
    """Return the predictions of pairs, by pair."""
    return {
        (r.user, r.product): r.rating for r in model.predictAll(sc.parallelize(pairs, 2)).collect()
    }


def dense(model):
    """Return users, products and the predictions of all pairs."""
    (users, U), (products, P) = (
        (list(side), np.array(list(side.values())).astype(float)) for side in collected(model)
    )
    U, P = (side[np.argsort(ids)] for side, ids in ((U, users), (P, products)))
    scores = model.mean + U[:, -2:-1] + P[:, -2] + U[:, :-2] @ P[:, :-2].T
    return np.sort(users), np.sort(products), scores


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


# ------------------------------------------------------------------ learning


@pytest.mark.parametrize(
    ("exchange", "placed", "user_blocks", "product_blocks", "iterations"),
    [
        ("shuffle", "range", 3, 3, 3),
        pytest.param("broadcast", "balanced", 2, 5, 3, marks=pytest.mark.long),
        ("join", "function", 5, 2, 3),
        pytest.param("shuffle", "function", 2, 5, 1, marks=pytest.mark.long),
        pytest.param("broadcast", "hash", 1, 1, 1, marks=pytest.mark.long),
        ("join", "locality", 3, 3, 1),
        pytest.param("auto", "hash", -1, -1, 1, marks=pytest.mark.long),
    ],
)
def test_placement_and_exchange_do_not_change_the_model(
    sc, batches, rdds, pairs, exchange, placed, user_blocks, product_blocks, iterations
):
    requested = {
        "userPartitioner": (lambda id_: (id_ * id_ + 1) % user_blocks)
        if placed == "function"
        else placed,
        "productPartitioner": (lambda id_: id_ // 7 % product_blocks)
        if placed == "function"
        else placed,
    }
    als = StreamingALS(
        rank=RANK,
        seed=SEED,
        exchange=exchange,
        userBlocks=user_blocks,
        productBlocks=product_blocks,
        iterations=iterations,
        **requested,
    )
    for rdd in rdds[:2]:
        als.train(rdd)
    expected = reference(batches[:2], iterations=iterations)
    result = predictions(sc, als.model, pairs)
    assert result.keys() == set(pairs)
    for (user, product), rating in result.items():
        assert rating == pytest.approx(expected.predicted(user, product), abs=1e-5)
    used = als.model.learned.exchange.exchange
    assert used in EXCHANGES
    assert exchange in (used, "auto")


def test_rows_match_the_reference(batches, models):
    """Duplicates count as separate observations."""
    expected = reference(batches)
    users, products = collected(models[2])
    assert users.keys() == expected.users.keys()
    assert products.keys() == expected.products.keys()
    for rows, side, seen in (
        (users, expected.users, expected.seen_users),
        (products, expected.products, expected.seen_products),
    ):
        for id_, row in rows.items():
            np.testing.assert_allclose(row[:-1], side[id_], atol=1e-5)
            assert row[-1] == seen[id_]


def test_training_is_reproducible_bit_for_bit(rdds, models):
    again = StreamingALS.train(rdds[0], **SETTINGS).train(rdds[1])
    assert row_bytes(again) == row_bytes(models[1])
    again.unpersist()


def test_ids_without_new_ratings_keep_their_rows(batches, models):
    for before, after, batch in zip(models, models[1:], batches[1:], strict=False):
        for side, (old, new) in enumerate(zip(row_bytes(before), row_bytes(after), strict=True)):
            touched = {rating[side] for rating in batch}
            assert old.keys() - touched
            assert touched - old.keys() or batch is batches[2]
            assert {id_: new[id_] for id_ in old.keys() - touched} == {
                id_: row for id_, row in old.items() if id_ not in touched
            }
            assert all(old[id_] != new[id_] for id_ in old.keys() & touched)
            assert new.keys() == old.keys() | touched


def test_later_batches_do_not_change_earlier_models(sc, rdds, models, pairs):
    before = predictions(sc, models[0], pairs), row_bytes(models[0])
    model = models[0]
    for rdd in (rdds[2], rdds[1], rdds[0]):
        model = model.train(rdd)
    assert (predictions(sc, models[0], pairs), row_bytes(models[0])) == before
    assert predictions(sc, model, pairs) != before[0]
    model.unpersist()
    assert row_bytes(models[0]) == before[1]


def test_mean_is_exact(sc, batches, models):
    total, count = Fraction(0), 0
    for model, batch in zip(models, batches, strict=True):
        total += sum(Fraction(float(np.float32(r))) for _, _, r in batch)
        count += len(batch)
        assert (model.ratings, model.mean) == (count, float(total / count))
    users, products = row_bytes(models[2])
    assert (models[2].users, models[2].products) == (len(users), len(products))


def test_learned_event(sc, batches, models):
    assert (models[0].rank, models[0].seed, models[2].batches) == (RANK, SEED, 3)
    users, products = set(), set()
    for number, batch in enumerate(batches, 1):
        learned = models[number - 1].learned
        assert isinstance(learned, BatchLearned)
        new = {u for u, _, _ in batch} - users, {p for _, p, _ in batch} - products
        users, products = users | new[0], products | new[1]
        assert (learned.batch, learned.ratings, learned.skipped) == (number, len(batch), 0)
        assert (learned.new_users, learned.new_products) == tuple(map(len, new))
        assert learned.exchange.exchange == "shuffle"
        assert learned.seconds > 0
    assert models[0].learned.rmse is None
    for before, after, batch in zip(models, models[1:], batches[1:], strict=False):
        result = predictions(sc, before, [(u, p) for u, p, _ in batch])
        errors = [result[u, p] - np.float32(r) for u, p, r in batch]
        assert after.learned.rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))), abs=1e-5)


# ------------------------------------------------------------------ predictions


def test_unknown_ids_are_predicted_as_zero_rows(sc, batches, models):
    model = models[0]
    users, products = collected(model)
    user, product = batches[0][0][:2]
    far = 2**40 + 3
    expected = {
        (user, product): model.mean
        + users[user][RANK]
        + products[product][RANK]
        + users[user][:RANK] @ products[product][:RANK],
        (user, 777): model.mean + users[user][RANK],
        (user, -far): model.mean + users[user][RANK],
        (999, product): model.mean + products[product][RANK],
        (far, product): model.mean + products[product][RANK],
        (999, 777): model.mean,
        (far, -far): model.mean,
    }
    requested = [*expected, *expected, (user, 777)]
    result = model.predictAll(sc.parallelize(requested, 3)).collect()
    assert sorted((r.user, r.product) for r in result) == sorted(requested)
    assert all(isinstance(r, Rating) for r in result)
    for rating in result:
        assert rating.rating == pytest.approx(expected[rating.user, rating.product], abs=1e-6)
    for pair, rating in expected.items():
        assert model.predict(*pair) == pytest.approx(rating, abs=1e-6)
    for pair, rating in [((user, 10**30), expected[user, 777]), ((-(10**30), 777), model.mean)]:
        assert model.predict(*pair) == pytest.approx(rating, abs=1e-6)


def test_invalid_pairs_raise(sc, models):
    with pytest.raises(SettingError, match="user must be an integer"):
        models[0].predict("ann", 3)
    with pytest.raises(AssertionError, match="user_product should be RDD"):
        models[0].predictAll([(1, 2)])
    with pytest.raises(AssertionError, match="user_product should be RDD"):
        models[0].predictAll(sc.parallelize([1, 2]))
    assert models[0].predictAll(sc.parallelize([], 2)).collect() == []


def test_lazy_predictions_outlive_their_model(sc, rdds, pairs):
    als = StreamingALS(**SETTINGS)
    als.train(rdds[0])
    expected = predictions(sc, als.model, pairs)
    lazy = als.model.predictAll(sc.parallelize(pairs, 2))
    everybody = als.model.recommendProductsForUsers(2)
    best = dict(everybody.collect())
    for rdd in (rdds[1], rdds[0]):
        als.train(rdd)
    gc.collect()
    sc._jvm.System.gc()
    assert {(r.user, r.product): r.rating for r in lazy.collect()} == expected
    assert dict(everybody.collect()) == best


def test_recommendations_match_a_dense_sort(models):
    model = models[2]
    users, products, scores = dense(model)
    mean_row = model.mean + np.array([collected(model)[1][p][RANK] for p in products], float)
    for user, row in [(int(users[4]), scores[4]), (999, mean_row), (10**20, mean_row)]:
        best = products[np.argsort(-row)]
        result = model.recommendProducts(user, 5)
        assert [(r.user, r.product) for r in result] == [(user, p) for p in best[:5]]
        np.testing.assert_allclose([r.rating for r in result], np.sort(row)[::-1][:5], atol=1e-5)
        result = model.recommendProducts(user, 3, exclude=best[:2], candidates=best[:4])
        assert [r.product for r in result] == best[2:4].tolist()
    column, product = scores[:, 7], int(products[7])
    best = users[np.argsort(-column)]
    result = model.recommendUsers(product, 4, exclude=[best[1]])
    assert [(r.user, r.product) for r in result] == [(u, product) for u in best[[0, 2, 3, 4]]]
    assert len(model.recommendUsers(777, 100)) == len(users)
    with pytest.raises(SettingError, match="num must be"):
        model.recommendProducts(1, -1)


def test_recommendations_for_all(models, rdds, batches):
    model = models[0]
    users, products, scores = dense(model)
    result = dict(model.recommendProductsForUsers(4, excludeSeen=rdds[0]).collect())
    assert sorted(result) == users.tolist()
    user = batches[0][0][0]
    seen = {p for u, p, _ in batches[0] if u == user}
    best = products[np.argsort(-scores[users.tolist().index(user)])]
    assert [r.product for r in result[user]] == [p for p in best if p not in seen][:4]
    result = dict(model.recommendUsersForProducts(2, candidates=users[:9]).collect())
    assert sorted(result) == products.tolist()
    assert [r.user for r in result[products[3]]] == users[np.argsort(-scores[:9, 3])][:2].tolist()


# ------------------------------------------------------------------ batches without ratings


def test_empty_batches(sc, rdds, models):
    als = StreamingALS(**SETTINGS)
    for empty in (sc.parallelize([], 2), sc.emptyRDD(), sc.parallelize([RatingBlock.empty()], 1)):
        als.train(empty)
        assert als.model is None
    with pytest.raises(RatingError, match="RDD is empty"):
        StreamingALS.train(sc.parallelize([], 2), **SETTINGS)
    before = models[0]
    for number, empty in enumerate((sc.parallelize([], 2), sc.emptyRDD()), 2):
        after = before.train(empty)
        learned = after.learned
        assert (after.batches, learned.batch, after.ratings) == (number, number, before.ratings)
        assert (learned.ratings, learned.new_users, learned.new_products) == (0, 0, 0)
        assert (learned.rmse, learned.exchange) == (None, None)
        before = after
    assert row_bytes(after) == row_bytes(models[0])
    assert (after.mean, after.users) == (models[0].mean, models[0].users)
    again = after.train(rdds[1])
    assert again.batches == 4
    assert row_bytes(again) == row_bytes(models[1])


@pytest.mark.parametrize("placed", ["hash", "range", "balanced", "locality"])
def test_empty_first_batch_fits_no_partitioner(sc, small_matrix, placed):
    als = StreamingALS(rank=2, badRatings="skip", userPartitioner=placed, userBlocks=2)
    als.train(sc.parallelize([RatingBlock.empty()], 2))
    als.train(sc.parallelize([(1, 2, NAN), (1, "two", 3.0)], 1))
    assert als.model is None
    als.train(sc.parallelize([*small_matrix, (1, 2, NAN)], 2))
    assert (als.model.ratings, als.model.learned.skipped) == (len(small_matrix), 1)


# ------------------------------------------------------------------ bad ratings


def test_invalid_ratings_raise_and_keep_the_model(sc, footprint, rdds):
    als = StreamingALS(**SETTINGS)
    als.train(rdds[0])
    model = als.model
    before = row_bytes(model)
    for bad, error, words in [
        ((1, 2, NAN), RatingError, "rating nan is not"),
        ((2**31, 2, 3.0), RatingError, "2147483648"),
        (("ann", 2, 3.0), RatingError, "'ann'"),
        (3.0, RatingTypeError, "but got <class 'float'>"),
    ]:
        with pytest.raises(error, match=words):
            als.train(sc.parallelize([(1, 2, 3.0), bad], 2))
        assert als.model is model
    assert row_bytes(model) == before
    als.train(rdds[1])
    assert als.model.batches == 2
    del model
    gc.collect()  # the errors' tracebacks form cycles that refer to the model
    assert len(footprint.remaining()) == levels_of(als.model)
    als.model.unpersist()
    assert not footprint.remaining()


def test_invalid_ratings_are_skipped_and_counted(sc, spark, batches, models):
    good = batches[0]
    users, products, stars = map(list, zip(*good, strict=True))
    rows = [Rating(*good[0]), *good[1:9], (1, 2, NAN), (2**31, 1, 1.0), "no rating", (1, 2), None]
    rows += [("ann", 1, 2.0), (1, 2, 1e39)]
    columns = [
        (np.array(users[9:40]), np.array(products[9:40]), np.array(stars[9:40])),
        (np.array([NAN, 1.0, 2.0]), np.array([1.0, NAN, 2.0]), np.array([1.0, 2.0, np.inf])),
        RatingBlock.from_columns(users[40:], products[40:], stars[40:]),
    ]
    settings = {**SETTINGS, "badRatings": "skip"}
    mixed = StreamingALS.train(sc.parallelize([*rows, *columns, (3, 4, NAN)], 3), **settings)
    assert (mixed.learned.ratings, mixed.learned.skipped) == (len(good), 7 + 3 + 1)
    assert mixed.ratings == len(good)
    assert row_bytes(mixed) == row_bytes(models[0])

    frame = spark.createDataFrame(
        [*good, (None, 2, 1.0), (1, None, 1.0), (1, 2, None), (1, 2, NAN)],
        "user int, item int, rating double",
    )
    framed = StreamingALS.train(frame, **settings)
    assert (framed.learned.ratings, framed.learned.skipped) == (len(good), 4)
    assert row_bytes(framed) == row_bytes(models[0])

    unchanged = framed.train(sc.parallelize([(1, 2, NAN)] * 3, 2))
    assert (unchanged.learned.ratings, unchanged.learned.skipped, unchanged.batches) == (0, 3, 2)
    assert row_bytes(unchanged) == row_bytes(framed)


def test_inconsistent_columns_raise_despite_skip(sc, models):
    als = StreamingALS(rank=2, badRatings="skip")
    uneven = (np.array([1, 2]), np.array([1, 2]), np.array([1.0]))
    with pytest.raises(RatingError, match="shapes"):
        als.train(sc.parallelize([uneven], 1))
    words = (np.array(["a", "b"]), np.array([1, 2]), np.array([1.0, 2.0]))
    with pytest.raises(RatingError, match="partition 0, batch 0"):
        als.train(sc.parallelize([words], 1))
    assert als.model is None


# ------------------------------------------------------------------ ways to train


def test_dstream_is_learned_batch_by_batch(sc, rdds, models):
    from pyspark.streaming import StreamingContext

    als, done = StreamingALS(**SETTINGS), threading.Event()
    with pytest.warns(FutureWarning):
        streams = StreamingContext(sc, 0.1)
    queue = streams.queueStream(rdds[:2])
    queue.foreachRDD(als.train)
    queue.foreachRDD(lambda rdd: done.set() if als.model and als.model.batches >= 2 else None)
    streams.start()
    try:
        assert done.wait(60)
    finally:
        streams.stop(stopSparkContext=False, stopGraceFully=False)
    assert als.model.ratings == models[1].ratings
    assert row_bytes(als.model) == row_bytes(models[1])


def test_class_and_instance_training_agree(rdds, models):
    als = StreamingALS(**SETTINGS)
    assert als.model is None
    assert als.train(rdds[0]) is None
    assert row_bytes(als.model) == row_bytes(models[0])
    again = StreamingALS.train(rdds[1], als.model)
    assert (
        row_bytes(again)
        == row_bytes(StreamingALS.train(rdds[1], model=models[0]))
        == row_bytes(models[1])
    )
    assert row_bytes(als.model) == row_bytes(models[0])


def test_dataframe_columns_are_stored(sc, spark, batches, models, tmp_path):
    frames = [
        spark.createDataFrame([(r, p, u) for u, p, r in batch], "r double, p int, u int")
        for batch in batches[:2]
    ]
    names = {"userCol": "u", "itemCol": "p", "ratingCol": "r"}
    model = StreamingALS.train(frames[0], **SETTINGS, **names)
    assert row_bytes(model) == row_bytes(models[0])
    assert row_bytes(model.train(frames[1])) == row_bytes(models[1])
    model.save(sc, str(tmp_path / "model"))
    loaded = StreamingModel.load(sc, str(tmp_path / "model"))
    assert row_bytes(loaded.train(frames[1])) == row_bytes(models[1])


@pytest.fixture
def unreadable(sc):
    """Ratings that raise when they are read."""
    return sc.parallelize([0], 1).map(lambda _: 1 / 0)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"gamma": 0}, "gamma must be positive"),
        ({"gamma": NAN}, "gamma must be a finite number"),
        ({"iterations": 0}, "iterations must be positive"),
        ({"rank": 0}, "must be positive but got 0"),
        ({"lambda_": -1}, "must be nonnegative but got -1"),
        ({"badRatings": "x"}, "'raise' or 'skip' but got 'x'"),
        ({"exchange": "x"}, "exchange must be"),
        ({"blocks": 0}, "must be -1 or positive"),
        ({"userPartitioner": "x"}, "userPartitioner must be"),
        ({"userCol": 3}, "userCol must be the name"),
        ({"seed": "x"}, "seed must be a number"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_are_checked_before_any_work(unreadable, setting, words):
    with pytest.raises(SettingError, match=words):
        StreamingALS.train(unreadable, **setting)
    with pytest.raises(SettingError, match=words):
        StreamingALS(**setting)


def test_models_are_checked_before_any_work(sc, unreadable, models, batch_model, small_matrix):
    with pytest.raises(SettingError, match="pass settings by name, such as rank=10"):
        StreamingALS.train(unreadable, 10)
    with pytest.raises(SettingError, match="gamma, rank cannot be passed with a StreamingModel"):
        StreamingALS.train(unreadable, models[0], rank=3, gamma=0.1)
    for name in ("rank", "blocks", "userPartitioner", "productBlocks"):
        with pytest.raises(SettingError, match=f"{name} cannot be passed with a MatrixFactor"):
            StreamingALS.train(unreadable, batch_model, **{name: 3})
    with pytest.raises(SettingError, match="gamma must be positive"):
        StreamingALS.train(unreadable, batch_model, gamma=0)
    with pytest.raises(RatingTypeError, match="RDD or a DataFrame"):
        StreamingALS.train([(1, 2, 3.0)])
    with pytest.raises(RatingTypeError, match="RDD or a DataFrame"):
        models[0].train([(1, 2, 3.0)])
    implicit = ALS.trainImplicit(sc.parallelize(small_matrix, 2), 2, 1)
    with pytest.raises(SettingError, match="implicit feedback"):
        StreamingALS.train(unreadable, implicit)
    implicit.unpersist()


def test_released_model_raises(sc, rdds, unreadable, tmp_path):
    model = StreamingALS.train(rdds[2], **SETTINGS)
    model.unpersist()
    model.unpersist()
    for use in (
        lambda: model.train(unreadable),
        lambda: StreamingALS.train(unreadable, model),
        lambda: model.predict(1, 2),
        lambda: model.predictAll(sc.parallelize([(1, 2)])),
        lambda: model.recommendProducts(1, 2),
        lambda: model.recommendProductsForUsers(2),
        lambda: model.toMatrixFactorizationModel(),
        lambda: model.save(sc, str(tmp_path / "model")),
    ):
        with pytest.raises(ModelReleasedError, match="has released this model"):
            use()
    assert model.batches == 1


# ------------------------------------------------------------------ to and from other models


@pytest.mark.parametrize("loaded", [False, True], ids=["trained", "loaded"])
def test_stream_starts_from_a_batch_model(sc, batch_model, ratings, footprint, tmp_path, loaded):
    model = batch_model
    if loaded:
        batch_model.save(sc, str(tmp_path / "model"))
        model = MatrixFactorizationModel.load(sc, str(tmp_path / "model"))
    factors = [(f.ids.tobytes(), f.rows.tobytes()) for f in model.collected_factors()]
    before = {
        (r.user, r.product): r.rating
        for r in model.predictAll(
            sc.parallelize([(u, p) for u in range(30) for p in range(40)], 2)
        ).collect()
    }
    assert len(before) == 1200
    footprint.baseline |= footprint.current()
    stream = StreamingALS.train(sc.parallelize([(500, 600, 4.0), (3, 5, 2.0)], 2), model, gamma=0.3)
    assert (stream.rank, stream.batches, stream.users, stream.products) == (RANK, 1, 31, 41)
    assert (stream.learned.new_users, stream.learned.new_products) == (1, 1)
    errors = [before[3, 5] - 2.0]
    mean_before = np.mean(list(before.values()))
    errors.append(mean_before - 4.0)
    assert stream.learned.rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))), abs=1e-5)
    result = predictions(sc, stream, list(before))
    moved = stream.mean - mean_before
    assert abs(moved) > 1e-6
    for (user, product), rating in before.items():
        if user != 3 and product != 5:
            assert result[user, product] - moved == pytest.approx(rating, abs=1e-5)
    assert result[3, 5] - moved < before[3, 5] or before[3, 5] < 2
    stream.unpersist()
    del stream
    assert [(f.ids.tobytes(), f.rows.tobytes()) for f in model.collected_factors()] == factors
    gc.collect()
    sc._jvm.System.gc()
    if loaded:
        model.unpersist()


def test_stream_of_a_batch_model_predicts_alike(sc, batch_model, models, footprint):
    footprint.baseline |= footprint.current()
    state = StreamState.of_factors(batch_model.factors.tables, batch_model.rank)
    stream = StreamingModel(state, models[0]._settings, models[0]._columns, None)
    assert (stream.batches, stream.learned, stream.users, stream.products) == (0, None, 30, 40)
    users, products, scores = dense(stream)
    factors = batch_model.collected_factors()
    expected = factors[0].rows.astype(float) @ factors[1].rows.astype(float).T
    np.testing.assert_array_equal(users, factors[0].ids)
    np.testing.assert_array_equal(products, factors[1].ids)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert stream.mean == pytest.approx(expected.mean(), abs=1e-5)
    assert stream.predict(3, 5) == pytest.approx(batch_model.predict(3, 5), abs=1e-5)
    stream.unpersist()
    assert not footprint.remaining()


def test_conversion_to_matrix_factorization_model(sc, rdds, pairs, footprint, tmp_path):
    stream = StreamingALS.train(rdds[0], **SETTINGS)
    expected = predictions(sc, stream, pairs)
    known = row_bytes(stream)
    user, product = min(known[0]), min(known[1])
    best = stream.recommendProducts(user, 6), stream.recommendUsers(product, 6)
    matrix = stream.toMatrixFactorizationModel()
    stream.unpersist()
    del stream
    gc.collect()
    assert matrix.rank == RANK + 2
    result = {
        (r.user, r.product): r.rating for r in matrix.predictAll(sc.parallelize(pairs, 2)).collect()
    }
    assert result.keys() == {(u, p) for u, p in pairs if u in known[0] and p in known[1]}
    for pair, rating in result.items():
        assert rating == pytest.approx(expected[pair], abs=1e-6)
    assert (matrix.recommendProducts(user, 6), matrix.recommendUsers(product, 6)) == best
    matrix.unpersist()
    del matrix


# ------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def saved(_spark, models, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model"
    models[1].save(_spark, str(path))
    return path


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of a saved model, to be damaged."""
    import shutil

    shutil.copytree(saved, tmp_path / "model")
    for crc in (tmp_path / "model").rglob(".*.crc"):
        crc.unlink()
    return tmp_path / "model"


def test_saved_and_loaded_model_is_equal(sc, saved, models, rdds, pairs, footprint):
    loaded = StreamingModel.load(sc, str(saved))
    assert (loaded.rank, loaded.seed, loaded.batches) == (RANK, SEED, 2)
    assert (loaded.mean, loaded.ratings) == (models[1].mean, models[1].ratings)
    assert (loaded.users, loaded.products) == (models[1].users, models[1].products)
    assert loaded.learned is None
    assert row_bytes(loaded) == row_bytes(models[1])
    assert loaded._settings == models[1]._settings
    # Shuffles of Spark's reader stay until the JVM collects them.
    remaining = footprint.remaining("persisted RDD", "broadcast file", "accumulator")
    assert [kind for kind, _ in remaining] == ["persisted RDD"] * 2
    assert predictions(sc, loaded, pairs) == predictions(sc, models[1], pairs)
    assert row_bytes(loaded.train(rdds[2])) == row_bytes(models[2])


def test_save_does_not_overwrite_a_model(sc, saved, models):
    with pytest.raises(ModelExistsError, match="already: save elsewhere"):
        models[2].save(sc, str(saved))
    assert StreamingModel.load(sc, str(saved)).batches == 2


def test_loading_another_kind_of_model_raises(sc, saved, batch_model, tmp_path):
    batch_model.save(sc, str(tmp_path / "batch"))
    with pytest.raises(ModelFormatError, match=r"MatrixFactorizationModel of format 1\.0; only"):
        StreamingModel.load(sc, str(tmp_path / "batch"))
    with pytest.raises(ModelFormatError, match=r"holds rddals\.StreamingModel of format 1"):
        MatrixFactorizationModel.load(sc, str(saved))
    with pytest.raises(ModelFormatError, match="holds no model"):
        StreamingModel.load(sc, str(tmp_path / "nowhere"))


def metadata_of(path):
    (part,) = (path / "metadata").glob("part-*")
    return part


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "no JSON",
        "[]",
        '{"class": "rddals.StreamingModel"}',
        {"version": "2"},
        {"settings": None},
        {"settings": {"rank": 3}},
        {"settings": {"colour": "red"}},
        {"total": "1/0"},
        {"total": None},
        {"ids": [1, 2]},
        {"ids": [1]},
        {"ratings": "many"},
    ],
    ids=str,
)
def test_invalid_metadata_raises(sc, copied, footprint, damaged):
    part = metadata_of(copied)
    if isinstance(damaged, dict):
        damaged = json.dumps(json.loads(part.read_text()) | damaged)
    part.write_text(damaged)
    with pytest.raises(ModelFormatError):
        StreamingModel.load(sc, str(copied))
    assert not footprint.remaining("persisted RDD")


@pytest.mark.parametrize("side", ["user", pytest.param("product", marks=pytest.mark.long)])
@pytest.mark.parametrize("damage", ["cut", "missing", "no bias", "null bias", "twice"])
def test_damaged_rows_raise(sc, spark, copied, footprint, side, damage):
    folder = copied / "data" / side
    if damage == "cut":
        part = max(folder.glob("part-*"), key=lambda path: path.stat().st_size)
        part.write_bytes(part.read_bytes()[:-20])
    elif damage == "missing":
        for part in folder.glob("*"):
            part.unlink()
        folder.rmdir()
    else:
        frame = spark.createDataFrame(
            spark.read.parquet(str(folder)).collect(),
            "id int, factor array<float>, bias float, ratings long",
        )
        if damage == "no bias":
            frame = frame.drop("bias")
        elif damage == "null bias":
            frame = frame.selectExpr("id", "factor", "if(id % 5 = 0, null, bias) bias", "ratings")
        else:
            frame = frame.union(frame.limit(1))
        frame.write.mode("overwrite").parquet(str(folder))
    footprint.baseline |= footprint.current()
    with pytest.raises(ModelFormatError, match=f"data/{side}"):
        StreamingModel.load(sc, str(copied))
    assert not footprint.remaining("persisted RDD")


# ------------------------------------------------------------------ released resources


def test_only_the_last_models_levels_stay_persisted(footprint, rdds):
    als = StreamingALS(**SETTINGS)
    for rdd in (*rdds, rdds[1]):
        als.train(rdd)
        remaining = footprint.remaining()
        assert [kind for kind, _ in remaining] == ["persisted RDD"] * levels_of(als.model)
    model, als.model = als.model, None
    del als
    assert model.batches == 4
    del model
    assert not footprint.remaining()


def test_dropped_models_are_released_at_once(footprint, rdds):
    """Without waiting for the cyclic garbage collector."""
    gc.collect()
    gc.disable()
    try:
        model = StreamingALS.train(rdds[0], **SETTINGS)
        model = model.train(rdds[2])
        assert len(footprint.remaining("persisted RDD")) == levels_of(model)
        del model
        als = StreamingALS(**SETTINGS)
        als.train(rdds[0])
        del als
        assert not footprint.remaining()
    finally:
        gc.enable()


def test_recommendations_are_released_with_the_model(footprint, rdds):
    model = StreamingALS.train(rdds[0], **SETTINGS)
    result = model.recommendProductsForUsers(2, excludeSeen=rdds[0])
    assert result.count() == model.users
    again = model.recommendUsersForProducts(2)
    assert again.count() == model.products
    model.unpersist()
    assert not footprint.remaining("broadcast file", "shuffle file", "accumulator")


@pytest.mark.parametrize("exchange", ["shuffle", "broadcast"])
def test_nondeterministic_partitioner_raises(sc, footprint, batches, exchange):
    def random_block(id_):
        import random

        return random.getrandbits(1)

    als = StreamingALS(
        rank=2, userPartitioner=random_block, userBlocks=2, productBlocks=2, exchange=exchange
    )
    with pytest.raises(InconsistentRatingsError, match="Persist"):
        als.train(sc.parallelize(batches[0], 2))
    assert als.model is None
    assert not footprint.remaining()


def test_late_failure_releases_everything(monkeypatch, footprint, rdds):
    """The failure is between storing users' rows and products' rows."""
    als = StreamingALS(**SETTINGS)
    als.train(rdds[0])
    calls = []

    def fail_second_call(rdd):
        calls.append(rdd)
        if len(calls) == 2:
            raise KeyboardInterrupt
        cut_lineage(rdd)

    cut_lineage = levels_module.cut_lineage
    monkeypatch.setattr(levels_module, "cut_lineage", fail_second_call)
    with pytest.raises(KeyboardInterrupt):
        als.train(rdds[0])
    monkeypatch.undo()
    calls.clear()
    assert als.model.batches == 1
    assert len(footprint.remaining()) == levels_of(als.model)
    als.train(rdds[1])
    assert len(footprint.remaining()) == levels_of(als.model)


def test_checkpoints_are_deleted_with_their_levels(rdds, checkpoint_dir):
    als = StreamingALS(**SETTINGS)
    for rdd in rdds:
        als.train(rdd)
    files = [path for path in checkpoint_dir.rglob("rdd-*") if path.is_dir()]
    assert len(files) == levels_of(als.model)
    als.model.unpersist()
    assert not [path for path in checkpoint_dir.rglob("rdd-*") if path.is_dir()]


@pytest.mark.long
def test_levels_stay_few(sc, footprint):
    """For any number of small batches and any ids."""
    als = StreamingALS(rank=1, blocks=1, seed=1, exchange="broadcast")
    most = 0
    for number in range(12):
        als.train(sc.parallelize([(number, number % 7, 3.0), (number // 2, number, 4.0)], 1))
        users, products = als.model._state.sides
        for side, ids in ((users, als.model.users), (products, als.model.products)):
            rows = [level.rows for level in side.levels]
            assert all(below >= 2 * above for below, above in pairwise(rows))
            assert sum(rows) <= 2 * ids
            most = max(most, len(rows))
    assert 2 <= most <= 4
    assert (als.model.users, als.model.products, als.model.ratings) == (12, 12, 24)
    assert len(footprint.remaining()) == levels_of(als.model)
