"""The locality partitioner places ids that are rated together in one block."""

from __future__ import annotations

import numpy as np
import pytest

from partitioners import HashPartitioner, LocalityPartitioner


def planted(communities, users, products, mean, inside, seed=1):
    """Draw ratings of communities; the share `inside` stays within a community."""
    rng = np.random.default_rng(seed)
    rating = np.repeat(np.arange(users), rng.poisson(mean, users))
    of_user, of_product = rng.permutation(users), rng.permutation(products)
    own = of_user[rating] % communities
    # Product p is of community of_product[p] % communities.
    members = np.argsort(of_product % communities, kind="stable").reshape(communities, -1)
    rated = np.where(
        rng.random(len(rating)) < inside,
        members[own, rng.integers(0, members.shape[1], len(rating))],
        rng.integers(0, products, len(rating)),
    )
    return np.unique(np.stack([rating, rated], axis=1), axis=0).T


def rows_sent(partitioner, ids, others):
    """Return the number of rows sent: pairs of another id and a block."""
    return len(np.unique(np.stack([others, partitioner.block_of(ids)], axis=1), axis=0))


def imbalance(partitioner, ids):
    loads = np.bincount(partitioner.block_of(ids), minlength=partitioner.num_blocks)
    return loads.max() / loads.mean()


@pytest.mark.parametrize("side", ["users", "products"])
def test_communities_are_found(side):
    users, products = planted(32, 6_400, 3_200, 25, 0.9)
    ids, others = (users, products) if side == "users" else (products, users)
    fitted = LocalityPartitioner.fit(ids, others, 32)
    assert rows_sent(HashPartitioner(32), ids, others) > 4 * rows_sent(fitted, ids, others)
    assert imbalance(fitted, ids) <= 1.1


def test_disjoint_communities_are_separated():
    users, products = planted(6, 600, 300, 20, 1.0)
    fitted = LocalityPartitioner.fit(products, users, 6)
    assert rows_sent(fitted, products, users) == len(np.unique(users))


@pytest.mark.parametrize("blocks", [2, 3, 7, 12])
def test_blocks_are_balanced_for_skewed_products(blocks):
    rng = np.random.default_rng(4)
    products = (rng.random(30_000) ** 2 * 500).astype(int)
    users = rng.integers(0, 1_000, 30_000)
    fitted = LocalityPartitioner.fit(products, users, blocks)
    assert imbalance(fitted, products) <= 1.1
    assert len(np.unique(fitted.block_of(products))) == blocks


def test_overweight_product_gets_its_own_block():
    products = np.concatenate([np.zeros(1_000, int), np.arange(1, 301).repeat(2)])
    users = np.arange(len(products)) % 500
    fitted = LocalityPartitioner.fit(products, users, 4)
    blocks = fitted.block_of(products)
    others = np.bincount(blocks[products > 0], minlength=4)
    assert others[fitted.block_of([0])[0]] <= 0.1 * 400
    assert others.max() <= 1.1 * 400


def test_more_blocks_than_ids():
    fitted = LocalityPartitioner.fit([5, 7, 5], [1, 1, 2], 9)
    assert len({*fitted.block_of([5, 7]).tolist()}) == 2


def test_equal_ratings_give_equal_partitioners():
    users, products = planted(4, 200, 100, 10, 0.8)
    first = LocalityPartitioner.fit(products, users, 4)
    assert LocalityPartitioner.fit(products, users, 4) == first
    assert LocalityPartitioner.fit(products, users, 4, seed=3) != first


def test_unseen_ids_are_hashed_evenly():
    fitted = LocalityPartitioner.fit([1, 2, 3], [7, 7, 8], 5)
    counts = np.bincount(fitted.block_of(np.arange(100, 10_100)), minlength=5)
    assert counts.min() > 1_800
    assert repr(fitted) == "LocalityPartitioner(num_blocks=5, table_size=3)"


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: LocalityPartitioner.fit([], [], 2), ValueError, "at least one id to fit from"),
        (lambda: LocalityPartitioner.fit([1, 2], [1], 2), ValueError, "got 2 ids and 1 others"),
        (lambda: LocalityPartitioner.fit([1], [1.5], 2), TypeError, "others must be integers"),
        (lambda: LocalityPartitioner.fit([1], [1], 0), ValueError, "num_blocks must be between"),
        (
            lambda: LocalityPartitioner.fit([1], [1], 2, tolerance=0),
            ValueError,
            "tolerance must be above 0, got 0",
        ),
        (lambda: LocalityPartitioner([1, 1], [0, 1], 2), ValueError, "ids must be unique, got 1"),
        (lambda: LocalityPartitioner([1], [2], 2), ValueError, "from 0 to 1, got 2 for id 1"),
        (lambda: LocalityPartitioner([1], [0, 1], 2), ValueError, "got 1 ids and 2 blocks"),
    ],
)
def test_invalid_arguments_raise(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_far_more_blocks_than_ids():
    fitted = LocalityPartitioner.fit([1, 2, 2], [1, 1, 2], 2**31 - 1)
    assert fitted.num_blocks == 2**31 - 1
    assert len(set(fitted.block_of([1, 2]).tolist())) == 2
