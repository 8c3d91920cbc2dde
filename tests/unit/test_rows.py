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


def drawn(n, width=RANK + 2, seed=5):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def test_factors_multiply_to_predictions():
    users, products, mean = drawn(5), drawn(7, seed=6), 3.25
    before = users.copy(), products.copy()
    predicted = user_factors(users).astype(float) @ product_factors(products, mean).T.astype(float)
    U, P = users[:, :RANK].astype(float), products[:, :RANK].astype(float)
    wanted = mean + users[:, RANK, None] + products[:, RANK] + U @ P.T
    np.testing.assert_allclose(predicted, wanted, atol=1e-6)
    np.testing.assert_array_equal(users, before[0])
    np.testing.assert_array_equal(products, before[1])


@pytest.mark.parametrize("rank", [1, 6])
def test_centred_rows_predict_what_plain_factors_do(rank):
    rng = np.random.default_rng(rank)
    U, P = (rng.normal(0.5, 1, size=(n, rank)).astype(np.float32) for n in (30, 40))
    means = [side.mean(axis=0, dtype=float) for side in (U, P)]
    users, products = centred_rows(U, *means, count=20), centred_rows(P, *means[::-1], count=20)
    assert users.shape == (30, state_width(rank))
    assert users.dtype == np.float32
    assert set(users[:, -1]) == set(products[:, -1]) == {20}
    factors = user_factors(users), product_factors(products, float(means[0] @ means[1]))
    found = factors[0].astype(float) @ factors[1].T.astype(float)
    np.testing.assert_allclose(found, U.astype(float) @ P.T.astype(float), atol=3e-6)


def test_biases_of_centred_rows_are_what_ids_differ_by():
    U, P = (np.random.default_rng(n).normal(1, 1, (n, 2)).astype(np.float32) for n in (30, 40))
    means = [side.mean(axis=0, dtype=float) for side in (U, P)]
    users = centred_rows(U, *means, count=20)
    predicted = U.astype(float) @ P.T.astype(float)
    np.testing.assert_allclose(users[:, 2], predicted.mean(axis=1) - predicted.mean(), atol=1e-6)


def test_midway_rows_are_found_again():
    rows = BiasedRows(drawn(6, RANK + 1), np.arange(6, dtype=np.float32), drawn(6, RANK + 1, 7))
    again = BiasedRows.from_intermediate(rows.intermediate_rows())
    assert rows.intermediate_rows().shape == (6, 2 * RANK + 3)
    for column in ("parameters", "counts", "anchor"):
        np.testing.assert_array_equal(getattr(again, column), getattr(rows, column))


def test_what_is_sent_of_midway_rows_is_what_the_other_side_needs():
    rows = BiasedRows(drawn(6, RANK + 1), np.arange(6, dtype=np.float32), drawn(6, RANK + 1, 7))
    for kept in (rows.intermediate_rows(), rows.final_rows(np.ones(6, dtype=np.int64))):
        np.testing.assert_array_equal(kept[:, : parameter_width(RANK)], rows.parameters)


def test_final_rows_count_the_ratings():
    found = BiasedRows.from_state(drawn(3))
    final = found.final_rows(np.array([1, 0, 500]))
    np.testing.assert_array_equal(final[:, :-1], found.parameters)
    np.testing.assert_array_equal(final[:, -1], found.counts + np.float32([1, 0, 500]))
