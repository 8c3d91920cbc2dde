import numpy as np
import pytest

from rddals.streaming.rows import (
    BiasedRows,
    centred_rows,
    parameter_width,
    product_factors,
    state_width,
    user_factors,
)

RANK = 4


def random_rows(n, width=RANK + 2, seed=5):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def test_factors_multiply_to_predictions():
    users, products, mean = random_rows(5), random_rows(7, seed=6), 3.25
    before = users.copy(), products.copy()
    predicted = user_factors(users).astype(float) @ product_factors(products, mean).T.astype(float)
    U, P = users[:, :RANK].astype(float), products[:, :RANK].astype(float)
    expected = mean + users[:, RANK, None] + products[:, RANK] + U @ P.T
    np.testing.assert_allclose(predicted, expected, atol=1e-6)
    np.testing.assert_array_equal(users, before[0])
    np.testing.assert_array_equal(products, before[1])


@pytest.mark.parametrize("rank", [1, 6])
def test_centred_rows_predict_like_plain_factors(rank):
    rng = np.random.default_rng(rank)
    U, P = (rng.normal(0.5, 1, size=(n, rank)).astype(np.float32) for n in (30, 40))
    means = [side.mean(axis=0, dtype=float) for side in (U, P)]
    users, products = centred_rows(U, *means, count=20), centred_rows(P, *means[::-1], count=20)
    assert users.shape == (30, state_width(rank))
    assert users.dtype == np.float32
    assert set(users[:, -1]) == set(products[:, -1]) == {20}
    factors = user_factors(users), product_factors(products, float(means[0] @ means[1]))
    rows = factors[0].astype(float) @ factors[1].T.astype(float)
    np.testing.assert_allclose(rows, U.astype(float) @ P.T.astype(float), atol=3e-6)


def test_biases_of_centred_rows_are_mean_differences():
    U, P = (np.random.default_rng(n).normal(1, 1, (n, 2)).astype(np.float32) for n in (30, 40))
    means = [side.mean(axis=0, dtype=float) for side in (U, P)]
    users = centred_rows(U, *means, count=20)
    predicted = U.astype(float) @ P.T.astype(float)
    np.testing.assert_allclose(users[:, 2], predicted.mean(axis=1) - predicted.mean(), atol=1e-6)


def test_intermediate_rows_round_trip():
    rows = BiasedRows(
        random_rows(6, RANK + 1), np.arange(6, dtype=np.float32), random_rows(6, RANK + 1, 7)
    )
    again = BiasedRows.from_intermediate(rows.intermediate_rows())
    assert rows.intermediate_rows().shape == (6, 2 * RANK + 3)
    for column in ("parameters", "counts", "anchor"):
        np.testing.assert_array_equal(getattr(again, column), getattr(rows, column))


def test_rows_begin_with_the_parameters_to_send():
    rows = BiasedRows(
        random_rows(6, RANK + 1), np.arange(6, dtype=np.float32), random_rows(6, RANK + 1, 7)
    )
    for sent in (rows.intermediate_rows(), rows.final_rows(np.ones(6, dtype=np.int64))):
        np.testing.assert_array_equal(sent[:, : parameter_width(RANK)], rows.parameters)


def test_final_rows_count_the_ratings():
    rows = BiasedRows.from_state(random_rows(3))
    final = rows.final_rows(np.array([1, 0, 500]))
    np.testing.assert_array_equal(final[:, :-1], rows.parameters)
    np.testing.assert_array_equal(final[:, -1], rows.counts + np.float32([1, 0, 500]))
