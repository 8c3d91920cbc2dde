"""Batches of ratings: what a model learns from them, empty ones, and bad ratings."""

import gc
from fractions import Fraction

import numpy as np
import pytest

from rddals import BatchLearned, Rating, RatingBlock, RatingError, RatingTypeError, StreamingALS
from rddals.blocks.start import id_start
from rddals.exchange import EXCHANGES
from stream_models import RANK, SEED, SETTINGS, collected, levels_of, predictions, row_bytes
from stream_reference import ReferenceStream

NAN = float("nan")


def start(product):
    return 0.1 * id_start(np.array([product], np.int32), rank=RANK, seed=SEED, side=1)[0]


def reference(batches, **settings):
    stream = ReferenceStream(RANK, start, **settings)
    for batch in batches:
        stream.train([(u, p, float(np.float32(r))) for u, p, r in batch])
    return stream


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


def test_skipped_ratings_are_counted_without_a_model(sc):
    als = StreamingALS(rank=2, badRatings="skip", userPartitioner="balanced")
    assert als.learned is None
    als.train(sc.parallelize([], 2))
    assert (als.learned.ratings, als.learned.skipped) == (0, 0)
    als.train(sc.parallelize([(1, 2, float("nan")), (1, 3, float("inf"))], 2))
    assert als.model is None
    assert (als.learned.ratings, als.learned.skipped) == (0, 2)
    als.train(sc.parallelize([(1, 2, float("nan")), (1, 3, 4.0)], 2))
    assert als.learned is als.model.learned
    assert (als.learned.ratings, als.learned.skipped) == (1, 1)
