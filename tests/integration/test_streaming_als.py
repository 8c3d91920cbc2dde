"""Streams with ``update="als"``: ids of a batch are solved from all their ratings."""

import numpy as np
import pytest

from rddals import ModelFormatError, SettingError, StreamingALS, StreamingModel
from rddals.blocks.start import id_start
from stream_models import collected, row_bytes, stored_ratings
from stream_reference import ReferenceALSStream

RANK, SEED = 2, 11
#: Small penalties: with the defaults, factors of so few ratings are nearly zero.
PENALTIES = {"lambda_": 3.0, "biasLambda": (1.0, 0.3)}
SETTINGS = {"rank": RANK, "seed": SEED, "update": "als", "exchange": "shuffle", **PENALTIES}


def start(product):
    return 0.1 * id_start(np.array([product], np.int32), rank=RANK, seed=SEED, side=1)[0]


def reference(batches, **settings):
    stream = ReferenceALSStream(RANK, start, lambda_=3.0, bias_lambda=(1.0, 0.3), **settings)
    for batch in batches:
        stream.train(batch)
    return stream


def assert_rows(model, expected, tolerance=2e-5):
    for rows, side in zip(collected(model), (expected.users, expected.products), strict=True):
        assert rows.keys() == side.keys()
        for id_, row in rows.items():
            np.testing.assert_allclose(row[:-1], side[id_], atol=tolerance)


@pytest.fixture(scope="module")
def batches(ratings):
    """Three batches with duplicates within a batch and across batches."""
    rng = np.random.default_rng(2)
    shuffled = [ratings[i] for i in rng.permutation(len(ratings))]
    second = [r for r in shuffled[110:180] if r[0] > 3 and r[1] > 5]
    second += [(u, p, 6 - r) for u, p, r in second[:7]] + shuffled[:5]
    return [shuffled[:110], second, shuffled[180:195]]


@pytest.fixture(scope="module")
def rdds(_spark, batches):
    return [_spark.parallelize(batch, 2) for batch in batches]


@pytest.fixture(scope="module")
def models(rdds):
    """The models after one, two and three batches."""
    trained = [StreamingALS.train(rdds[0], blocks=2, **SETTINGS)]
    for rdd in rdds[1:]:
        trained.append(trained[-1].train(rdd))
    yield trained
    for model in trained:
        model.unpersist()


@pytest.mark.parametrize(
    ("exchange", "placed", "user_blocks", "product_blocks", "iterations"),
    [
        ("shuffle", "locality", 3, 5, 2),
        pytest.param("broadcast", "balanced", 5, 2, 1, marks=pytest.mark.long),
        pytest.param("join", "hash", 2, 3, 2, marks=pytest.mark.long),
        ("auto", "range", 1, 1, 1),
    ],
)
def test_placement_and_exchange_do_not_change_the_model(
    batches, rdds, exchange, placed, user_blocks, product_blocks, iterations
):
    model = StreamingALS.train(
        rdds[0],
        **SETTINGS
        | {"exchange": exchange, "userPartitioner": placed, "productPartitioner": placed}
        | {"userBlocks": user_blocks, "productBlocks": product_blocks, "iterations": iterations},
    )
    after = model.train(rdds[1])
    assert_rows(after, reference(batches[:2], iterations=iterations))
    for used in (model, after):
        used.unpersist()


def test_rows_match_the_reference(batches, models):
    for number, model in enumerate(models, 1):
        assert_rows(model, reference(batches[:number]))


def test_ratings_are_stored_by_user_and_by_product(batches, models):
    for number, model in enumerate(models, 1):
        everything = sorted(rating for batch in batches[:number] for rating in batch)
        assert stored_ratings(model) == [everything, everything]


def test_ids_without_new_ratings_keep_their_rows(batches, models):
    for before, after, batch in zip(models, models[1:], batches[1:], strict=False):
        for side, (old, new) in enumerate(zip(row_bytes(before), row_bytes(after), strict=True)):
            touched = {rating[side] for rating in batch}
            assert old.keys() - touched
            assert all(new[id_] == old[id_] for id_ in old.keys() - touched)
            assert all(new[id_] != old[id_] for id_ in old.keys() & touched)


def test_reported_rmse_is_that_of_the_previous_model(sc, batches, models):
    for before, after, batch in zip(models, models[1:], batches[1:], strict=False):
        pairs = sc.parallelize([(u, p) for u, p, _ in batch], 2)
        predicted = {(r.user, r.product): r.rating for r in before.predictAll(pairs).collect()}
        errors = [(predicted[u, p] - rating) ** 2 for u, p, rating in batch]
        assert after.learned.rmse == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-5)
        known = [row_bytes(before)[side].keys() for side in (0, 1)]
        new = [len({rating[side] for rating in batch} - known[side]) for side in (0, 1)]
        assert [after.learned.new_users, after.learned.new_products] == new
    assert models[0].learned.rmse is None


def test_sweeps_converge_to_the_batch_solution(sc, batches, models):
    everything = [rating for batch in batches for rating in batch]
    expected = reference([everything])
    expected.sweep(100)
    swept = models[2].sweep(10)
    stepwise = reference(batches)
    stepwise.sweep(10)
    assert_rows(swept, stepwise, tolerance=1e-4)
    for own, rows in zip((stepwise.users, stepwise.products), collected(swept), strict=True):
        own |= {id_: row[:-1].astype(float) for id_, row in rows.items()}
    assert expected.loss() < stepwise.loss() < 0.99 * reference(batches).loss()
    stepwise.sweep(50)  # starts from the swept rows
    assert stepwise.loss() == pytest.approx(expected.loss(), rel=1e-3)
    assert (swept.ratings, swept.batches, swept.mean) == (len(everything), 3, models[2].mean)
    assert [side.keys() for side in row_bytes(swept)] == [
        side.keys() for side in row_bytes(models[2])
    ]
    swept.unpersist()


def test_training_after_a_sweep(batches, rdds, models):
    expected = reference(batches[:2])
    expected.sweep(2)
    expected.train(batches[2])
    swept = models[1].sweep(2)
    after = swept.train(rdds[2])
    assert_rows(after, expected)
    for used in (swept, after):
        used.unpersist()


def test_saved_and_loaded_model_is_equal(sc, rdds, models, tmp_path):
    path = str(tmp_path / "model")
    models[1].save(sc, path)
    loaded = StreamingModel.load(sc, path)
    assert row_bytes(loaded) == row_bytes(models[1])
    assert stored_ratings(loaded) == stored_ratings(models[1])
    after = loaded.train(rdds[2])
    for own, others in zip(collected(after), collected(models[2]), strict=True):
        for id_, row in own.items():
            np.testing.assert_allclose(row, others[id_], atol=1e-6)
    for used in (loaded, after):
        used.unpersist()


def test_model_without_its_ratings_does_not_load(sc, models, tmp_path, footprint):
    path = tmp_path / "model"
    models[0].save(sc, str(path))
    for file in (path / "data" / "rating").glob("*.parquet"):
        file.unlink()
    with pytest.raises(ModelFormatError, match=r"data/rating cannot be read"):
        StreamingModel.load(sc, str(path))
    assert not footprint.remaining("persisted RDD")


def test_only_the_last_model_stays_persisted(footprint, rdds):
    als = StreamingALS(blocks=2, **SETTINGS)
    for rdd in (*rdds, rdds[0], rdds[1]):
        als.train(rdd)
    level_count = sum(len(levels.levels) for levels in als.model.state.all_levels)
    assert [kind for kind, _ in footprint.remaining()] == ["persisted RDD"] * level_count
    als.model = als.model.sweep()
    als.model = None
    assert not footprint.remaining()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lambda_": 0}, "must be positive for update='als' but got 0"),
        ({"gamma": 0.5}, "gamma=0.5 is not used with update='als'"),
        ({"biasLambda": (1, 0)}, r"biasLambda must be two positive numbers.* got \(1, 0\)"),
        ({"biasLambda": 3}, "biasLambda must be two positive numbers.* got 3"),
        ({"update": "both"}, "update must be 'sgd' or 'als' but got 'both'"),
        ({"update": "sgd", "biasLambda": (1, 1)}, r"biasLambda=\(1, 1\) is not used with"),
    ],
)
def test_invalid_settings_raise(settings, words):
    with pytest.raises(SettingError, match=words):
        StreamingALS(**{"update": "als"} | settings)


def test_sweep_without_stored_ratings_raises(rdds):
    model = StreamingALS.train(rdds[2], rank=2, seed=1)
    with pytest.raises(SettingError, match="stores no ratings to sweep over"):
        model.sweep()
    model.unpersist()


def test_batch_model_cannot_start_an_als_stream(sc, ratings):
    from rddals import ALS

    trained = ALS.train(sc.parallelize(ratings, 2), 2, 1, seed=1)
    with pytest.raises(SettingError, match="a batch-trained model does not have"):
        StreamingALS.train(sc.parallelize(ratings, 2), trained, update="als")
    trained.unpersist()
