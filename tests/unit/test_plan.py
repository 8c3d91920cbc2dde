from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_matrix as small
from partitioners import HashPartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.exchange.plan import BROADCAST_LIMIT, HalfStepSizes, bytes_moved, choose, readable_bytes

MIB = 2**20
# 100 rows of 40 bytes, each needed by two blocks and a half on average.
SIZES = HalfStepSizes(source_rows=100, needed_rows=250, ratings=1_000, rank=10, executors=3)


def test_bytes_by_hand():
    assert bytes_moved(SIZES) == {
        "shuffle": 250 * 40,
        "broadcast": 100 * 40 * 4,  # to the driver, and to three executors
        "join": 1_000 * (40 + 12),
    }


def test_bytes_of_the_small_matrix_by_hand():
    # Users send to two blocks of products. Even products (10, 42, 60, 90) are rated by users
    # 2, 7, 12, 31 and 40; odd ones (11, 15, 23, 57) by all but user 2: 5 + 6 rows of 3 floats.
    ratings = RatingBlock.from_rows(small.RATINGS)
    needed = 0
    for block in (0, 1):
        rows = np.flatnonzero(ratings.products % 2 == block)
        own = RatingBlock(ratings.users[rows], ratings.products[rows], ratings.ratings[rows])
        needed += len(link(block, own, 1, HashPartitioner(2)).in_block.source_ids)
    sizes = HalfStepSizes(
        source_rows=7, needed_rows=needed, ratings=len(ratings), rank=3, executors=1
    )
    assert bytes_moved(sizes) == {
        "shuffle": 11 * 12,
        "broadcast": 7 * 12 * 2,
        "join": 21 * 24,
    }


def test_nothing_to_move():
    assert set(bytes_moved(HalfStepSizes(0, 0, 0, 10, 4)).values()) == {0}


sizes = st.builds(
    HalfStepSizes,
    source_rows=st.integers(0, 10**9),
    needed_rows=st.integers(0, 10**10),
    ratings=st.integers(0, 10**11),
    rank=st.integers(1, 500),
    executors=st.integers(1, 1_000),
)


@given(users=sizes, products=sizes)
def test_the_choice_moves_the_fewest_bytes_that_fit_the_driver(users, products):
    choice = choose(users, products)
    moved = {
        name: bytes_moved(users)[name] + bytes_moved(products)[name]
        for name in ("shuffle", "broadcast")
    }
    fits = 4 * max(users.source_rows * users.rank, products.source_rows * products.rank)
    assert choice.exchange in moved  # the join is there to compare with
    if fits > BROADCAST_LIMIT:
        assert choice.exchange == "shuffle"
        assert "driver's memory" in choice.reason
    else:
        assert moved[choice.exchange] == min(moved.values())
    for size in moved.values():
        assert readable_bytes(size) in choice.reason


def test_few_needed_rows_are_shuffled_and_many_are_broadcast():
    # Broadcast to one executor moves every row twice.
    one = replace(SIZES, executors=1)
    assert choose(replace(one, needed_rows=199), one_sided(one)).exchange == "shuffle"
    assert choose(replace(one, needed_rows=201), one_sided(one)).exchange == "broadcast"


def one_sided(sizes):
    """A half-step in which nothing moves."""
    return replace(sizes, source_rows=0, needed_rows=0, ratings=0)


def test_both_half_steps_count():
    one = replace(SIZES, executors=1)
    light, heavy = replace(one, needed_rows=150), replace(one, needed_rows=260)
    assert choose(light, light).exchange == "shuffle"
    assert choose(light, heavy).exchange == choose(heavy, light).exchange == "broadcast"


def test_more_executors_make_a_broadcast_dearer():
    assert choose(replace(SIZES, executors=1), replace(SIZES, executors=1)).exchange == "broadcast"
    assert choose(replace(SIZES, executors=2), replace(SIZES, executors=2)).exchange == "shuffle"


def test_a_tie_is_shuffled():
    # Then the driver has nothing to hold.
    tie = replace(SIZES, executors=1, needed_rows=200)
    assert choose(tie, tie).exchange == "shuffle"


@pytest.mark.parametrize("side", ["users", "products"])
def test_the_driver_holds_so_much_and_no_more(side):
    # Needed everywhere, so that a broadcast is the cheaper; 64 bytes a row.
    most = HalfStepSizes(BROADCAST_LIMIT // 64, BROADCAST_LIMIT, 0, rank=16, executors=1)
    more = replace(most, source_rows=most.source_rows + 1)
    other = replace(most, source_rows=10)
    pair = {"users": lambda sizes: (sizes, other), "products": lambda sizes: (other, sizes)}[side]
    assert choose(*pair(most)).exchange == "broadcast"
    choice = choose(*pair(more))
    assert choice.exchange == "shuffle"
    assert "256.0 MiB of the driver's memory (limit 256.0 MiB)" in choice.reason


def test_the_reason_gives_both_figures():
    rows = MIB // 40  # so a mebibyte, nearly
    sizes = HalfStepSizes(rows, 3 * rows, 1, rank=10, executors=4)
    assert choose(sizes, sizes).reason == (
        "6.0 MiB per iteration by shuffle, 10.0 MiB by broadcast"
    )
