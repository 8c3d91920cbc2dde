"""Holding out ratings, the same ones in every process and run."""

from __future__ import annotations

import numpy as np

from rddals.cli.split import held_out

RNG = np.random.default_rng(5)
USERS = RNG.integers(-(2**31), 2**31, 50_000).astype(np.int32)
PRODUCTS = RNG.integers(0, 2_000, 50_000).astype(np.int32)


def test_about_the_given_fraction_is_held_out():
    for fraction in (0.0, 0.01, 0.2, 0.5, 0.99):
        share = held_out(USERS, PRODUCTS, fraction, 0).mean()
        assert abs(share - fraction) < 4 * np.sqrt(fraction * (1 - fraction) / len(USERS)) + 1e-12


def test_split_depends_only_on_the_pair():
    order = RNG.permutation(len(USERS))
    whole = held_out(USERS, PRODUCTS, 0.2, 3)
    assert np.array_equal(held_out(USERS[order], PRODUCTS[order], 0.2, 3), whole[order])
    for row in range(10):
        piece = slice(row, row + 1)
        assert held_out(USERS[piece], PRODUCTS[piece], 0.2, 3)[0] == whole[row]


def test_user_and_product_are_not_exchangeable():
    few = np.arange(1, 2001, dtype=np.int32)
    assert not np.array_equal(held_out(few, few[::-1], 0.5, 0), held_out(few[::-1], few, 0.5, 0))


def test_other_seeds_hold_out_other_ratings():
    one, two = (held_out(USERS, PRODUCTS, 0.2, seed) for seed in (1, 2))
    # Independent choices overlap in a fifth of a fifth.
    assert abs((one & two).mean() - 0.04) < 0.005
    assert held_out(USERS, PRODUCTS, 0.2, -1).any()  # any integer is a seed


def test_users_and_products_are_held_out_evenly():
    users = np.repeat(np.arange(200, dtype=np.int32), 200)
    products = np.tile(np.arange(200, dtype=np.int32), 200)
    rows = held_out(users, products, 0.2, 0).reshape(200, 200)
    for axis in (0, 1):
        assert rows.mean(axis).min() > 0.05 and rows.mean(axis).max() < 0.35
