"""Streams that solve anew whom a batch touches, from all ratings of theirs."""

import numpy as np
import pytest

from rddals import ModelFormatError, RatingBlock, SettingError, StreamingALS, StreamingModel
from rddals.blocks.start import id_start
from stream_reference import Resolved

RANK, SEED = 2, 11
#: Small penalties: with the defaults, factors of so few ratings are all but zero.
PENALTIES = {"lambda_": 3.0, "biasLambda": (1.0, 0.3)}
SETTINGS = {"rank": RANK, "seed": SEED, "update": "als", "exchange": "shuffle", **PENALTIES}


def start(product):
    return 0.1 * id_start(np.array([product], np.int32), rank=RANK, seed=SEED, side=1)[0]


def reference(batches, **settings):
    stream = Resolved(RANK, start, lambda_=3.0, bias_lambda=(1.0, 0.3), **settings)
    for batch in batches:
        stream.train(batch)
    return stream


def collected(model):
    """Both sides' rows as they are kept, by id."""
    blocks = (side.table().collect(model.rank + 2) for side in model._state.sides)
    return [dict(zip(block.ids.tolist(), block.rows, strict=True)) for block in blocks]


def kept(model):
    return [{id_: row.tobytes() for id_, row in side.items()} for side in collected(model)]


def assert_rows(model, wanted, tolerance=2e-5):
    for rows, side in zip(collected(model), (wanted.users, wanted.products), strict=True):
        assert rows.keys() == side.keys()
        for id_, row in rows.items():
            np.testing.assert_allclose(row[:-1], side[id_], atol=tolerance)


def history(model):
    """All ratings that a model keeps, by user and by product."""
    found = []
    for side in model._state.history:
        blocks = [block for rdd in side.rdds for block in rdd.collect()]
        columns = RatingBlock.concatenate(blocks)
        rows = zip(
            columns.users.tolist(), columns.products.tolist(), columns.ratings.tolist(), strict=True
        )
        found.append(sorted(rows))
    return found


@pytest.fixture(scope="module")
def batches(ratings):
    """Three batches; some pairs are rated twice, in one batch and in two."""
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
def test_the_same_model_wherever_ids_live_and_however_rows_travel(
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


def test_every_row_beside_the_reference(batches, models):
    for number, model in enumerate(models, 1):
        assert_rows(model, reference(batches[:number]))


def test_all_ratings_are_kept_by_user_and_by_product(batches, models):
    for number, model in enumerate(models, 1):
        everything = sorted(rating for batch in batches[:number] for rating in batch)
        assert history(model) == [everything, everything]


def test_who_is_not_in_a_batch_keeps_the_row(batches, models):
    for before, after, batch in zip(models, models[1:], batches[1:], strict=False):
        for side, (old, new) in enumerate(zip(kept(before), kept(after), strict=True)):
            touched = {rating[side] for rating in batch}
            assert old.keys() - touched
            assert all(new[id_] == old[id_] for id_ in old.keys() - touched)
            assert all(new[id_] != old[id_] for id_ in old.keys() & touched)


def test_the_error_before_a_batch_is_that_of_the_model_before(sc, batches, models):
    for before, after, batch in zip(models, models[1:], batches[1:], strict=False):
        pairs = sc.parallelize([(u, p) for u, p, _ in batch], 2)
        said = {(r.user, r.product): r.rating for r in before.predictAll(pairs).collect()}
        errors = [(said[u, p] - rating) ** 2 for u, p, rating in batch]
        assert after.learned.rmse == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-5)
        known = [kept(before)[side].keys() for side in (0, 1)]
        new = [len({rating[side] for rating in batch} - known[side]) for side in (0, 1)]
        assert [after.learned.new_users, after.learned.new_products] == new
    assert models[0].learned.rmse is None


def test_sweeps_go_where_one_batch_of_everything_does(sc, batches, models):
    everything = [rating for batch in batches for rating in batch]
    wanted = reference([everything])
    wanted.sweep(100)
    swept = models[2].sweep(10)
    at_once = reference(batches)
    at_once.sweep(10)
    assert_rows(swept, at_once, tolerance=1e-4)
    for own, rows in zip((at_once.users, at_once.products), collected(swept), strict=True):
        own |= {id_: row[:-1].astype(float) for id_, row in rows.items()}
    assert wanted.loss() < at_once.loss() < 0.99 * reference(batches).loss()
    at_once.sweep(50)  # from the very rows that were swept
    assert at_once.loss() == pytest.approx(wanted.loss(), rel=1e-3)
    assert (swept.ratings, swept.batches, swept.mean) == (len(everything), 3, models[2].mean)
    assert [side.keys() for side in kept(swept)] == [side.keys() for side in kept(models[2])]
    swept.unpersist()


def test_a_model_goes_on_after_a_sweep(batches, rdds, models):
    wanted = reference(batches[:2])
    wanted.sweep(2)
    wanted.train(batches[2])
    swept = models[1].sweep(2)
    after = swept.train(rdds[2])
    assert_rows(after, wanted)
    for used in (swept, after):
        used.unpersist()


def test_a_model_is_loaded_as_it_was(sc, rdds, models, tmp_path):
    path = str(tmp_path / "model")
    models[1].save(sc, path)
    loaded = StreamingModel.load(sc, path)
    assert kept(loaded) == kept(models[1])
    assert history(loaded) == history(models[1])
    after = loaded.train(rdds[2])
    for own, others in zip(collected(after), collected(models[2]), strict=True):
        for id_, row in own.items():
            np.testing.assert_allclose(row, others[id_], atol=1e-6)
    for used in (loaded, after):
        used.unpersist()


def test_a_model_whose_ratings_are_gone_is_not_loaded(sc, models, tmp_path, footprint):
    path = tmp_path / "model"
    models[0].save(sc, str(path))
    for file in (path / "data" / "rating").glob("*.parquet"):
        file.unlink()
    with pytest.raises(ModelFormatError, match=r"data/rating cannot be read"):
        StreamingModel.load(sc, str(path))
    assert not footprint.left("persisted RDD")


def test_nothing_is_left_but_what_the_last_model_holds(footprint, rdds):
    als = StreamingALS(blocks=2, **SETTINGS)
    for rdd in (*rdds, rdds[0], rdds[1]):
        als.train(rdd)
    held = sum(len(levels.levels) for levels in als.model._state.all_levels)
    assert [kind for kind, _ in footprint.left()] == ["persisted RDD"] * held
    als.model = als.model.sweep()
    als.model = None
    assert not footprint.left()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lambda_": 0}, "must be positive for update='als' but got 0"),
        ({"gamma": 0.5}, "gamma=0.5 has no part in update='als'"),
        ({"biasLambda": (1, 0)}, r"biasLambda must be two positive numbers.* got \(1, 0\)"),
        ({"biasLambda": 3}, "biasLambda must be two positive numbers.* got 3"),
        ({"update": "both"}, "update must be 'sgd' or 'als' but got 'both'"),
        ({"update": "sgd", "biasLambda": (1, 1)}, r"biasLambda=\(1, 1\) has no part in"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(SettingError, match=words):
        StreamingALS(**{"update": "als"} | settings)


def test_only_a_model_that_keeps_its_ratings_is_swept(rdds):
    model = StreamingALS.train(rdds[2], rank=2, seed=1)
    with pytest.raises(SettingError, match="keeps no ratings to sweep over"):
        model.sweep()
    model.unpersist()


def test_a_batch_trained_model_is_not_gone_on_from(sc, ratings):
    from rddals import ALS

    trained = ALS.train(sc.parallelize(ratings, 2), 2, 1, seed=1)
    with pytest.raises(SettingError, match="a batch-trained model does not have"):
        StreamingALS.train(sc.parallelize(ratings, 2), trained, update="als")
    trained.unpersist()
