"""Blocks of a side joined into one block with the same systems."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitioners import HashPartitioner
from rddals.blocks.joined_links import joined_in_block
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.config import Objective
from rddals.errors import InconsistentRatingsError
from rddals.kernels.half_step import half_step


def linked(ratings, side, own, other):
    """Return the in-blocks of one side."""
    ids = (ratings.users, ratings.products)[side]
    blocks = []
    for block in range(own.num_blocks):
        selected = own.block_of(ids) == block
        part = RatingBlock(
            ratings.users[selected], ratings.products[selected], ratings.ratings[selected]
        )
        blocks.append(link(block, part, side, other).in_block)
    return blocks


def sources_of(blocks):
    ids = np.concatenate([block.ids for block in blocks])
    return ids, np.array([len(block.ids) for block in blocks], dtype=np.int32)


@given(
    user_blocks=st.integers(1, 6),
    product_blocks=st.integers(1, 6),
    values=st.sampled_from([2, 9, 1000]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_joined_blocks_give_the_factors_of_one_block(user_blocks, product_blocks, values, seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 900))
    ratings = RatingBlock.from_columns(
        rng.integers(-20, 60, count), rng.integers(0, 40, count), rng.integers(0, values, count) / 2
    )
    own, other = HashPartitioner(user_blocks), HashPartitioner(product_blocks)
    users, products = linked(ratings, 0, own, other), linked(ratings, 1, other, own)
    source_ids, counts = sources_of(products)
    joined = joined_in_block(users, source_ids, counts)
    np.testing.assert_array_equal(joined.ids, sources_of(users)[0])
    np.testing.assert_array_equal(joined.source_ids, source_ids)

    one = link(0, ratings, 0, HashPartitioner(1)).in_block
    rows = rng.normal(size=(len(source_ids), 4)).astype(np.float32)
    objective = Objective(4, 0.1)
    for kernels in ("numpy", "auto"):
        actual = half_step(joined, rows, objective, kernels=kernels)
        expected = half_step(one, rows[np.argsort(source_ids)], objective, kernels="numpy")
        order = np.argsort(joined.ids)
        np.testing.assert_array_equal(joined.ids[order], one.ids)
        np.testing.assert_allclose(actual.rows[order], expected.rows, rtol=1e-5, atol=1e-6)
        assert actual.loss == pytest.approx(expected.loss)


def test_single_block_is_returned_unchanged():
    ratings = RatingBlock.from_rows([(1, 0, 1.0), (2, 1, 2.0)])
    (users,), (products,) = (
        linked(ratings, side, HashPartitioner(1), HashPartitioner(1)) for side in (0, 1)
    )
    assert joined_in_block([users], *sources_of([products])) is users


def test_more_than_256_rating_values_are_stored_as_floats():
    # 200 different values in each block, 400 in all.
    rows = [(user, 0, user / 2 + (500 if user % 2 else 0)) for user in range(400)]
    ratings = RatingBlock.from_rows(rows)
    users = linked(ratings, 0, HashPartitioner(2), HashPartitioner(1))
    assert all(block.scale is not None for block in users)
    joined = joined_in_block(users, np.array([0], dtype=np.int32), np.array([1], dtype=np.int32))
    assert joined.scale is None
    np.testing.assert_array_equal(
        np.sort(joined.ratings), np.sort(np.concatenate([block.ratings for block in users]))
    )


def test_empty_blocks_join_to_an_empty_block():
    empty = link(0, RatingBlock.empty(), 0, HashPartitioner(1)).in_block
    no_ids = np.empty(0, dtype=np.int32)
    joined = joined_in_block([empty, empty], no_ids, no_ids)
    assert len(joined.ids) == len(joined.sources) == 0


def test_id_missing_on_the_other_side_raises():
    ratings = RatingBlock.from_rows([(1, 0, 1.0), (2, 7, 2.0)])
    users = linked(ratings, 0, HashPartitioner(2), HashPartitioner(1))
    ids = np.array([0, 5], dtype=np.int32)
    with pytest.raises(InconsistentRatingsError, match="Id 7 has ratings on one side"):
        joined_in_block(users, ids, np.array([2], dtype=np.int32))
