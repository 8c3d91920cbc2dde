"""Predictions and recommendations of streaming models, and conversion from and to other models."""

import gc

import numpy as np
import pytest

from rddals import MatrixFactorizationModel, Rating, SettingError, StreamingALS, StreamingModel
from rddals.rdds.frames import Columns
from rddals.streaming.state import StreamState
from stream_models import RANK, SETTINGS, collected, dense, predictions, row_bytes

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
    stream = StreamingModel(state, models[0].settings, Columns.checked(None, None, None), None)
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
