from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_matrix as small
from partitioners import HashPartitioner
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.exchange.choice import (
    BROADCAST_LIMIT,
    HalfStepSizes,
    Resources,
    bytes_moved,
    choose,
    local_bytes,
    readable_bytes,
    seconds_per_iteration,
)

MIB = 2**20
# 100 rows of 40 bytes, each needed by 2.5 blocks on average.
SIZES = HalfStepSizes(source_rows=100, needed_rows=250, ratings=1_000, rank=10, executors=3)


def test_bytes_moved():
    assert bytes_moved(SIZES) == {
        "shuffle": 250 * 40,
        "broadcast": 100 * 40 * 4,  # to the driver, and to three executors
        "join": 1_000 * (40 + 12),
        "local": 0,
    }


def test_bytes_moved_of_the_small_matrix():
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
        "local": 0,
    }


def test_empty_half_step_moves_no_bytes():
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
def test_choice_moves_the_fewest_bytes_the_driver_can_hold(users, products):
    choice = choose(users, products)
    moved = {
        name: bytes_moved(users)[name] + bytes_moved(products)[name]
        for name in ("shuffle", "broadcast")
    }
    fits = 4 * max(users.source_rows * users.rank, products.source_rows * products.rank)
    assert choice.exchange in moved  # the join is only compared, never chosen
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
    assert choose(replace(one, needed_rows=199), idle(one)).exchange == "shuffle"
    assert choose(replace(one, needed_rows=201), idle(one)).exchange == "broadcast"


def idle(sizes):
    """Return a half-step in which nothing moves."""
    return replace(sizes, source_rows=0, needed_rows=0, ratings=0)


def test_both_half_steps_count():
    one = replace(SIZES, executors=1)
    light, heavy = replace(one, needed_rows=150), replace(one, needed_rows=260)
    assert choose(light, light).exchange == "shuffle"
    assert choose(light, heavy).exchange == choose(heavy, light).exchange == "broadcast"


def test_more_executors_make_a_broadcast_costlier():
    assert choose(replace(SIZES, executors=1), replace(SIZES, executors=1)).exchange == "broadcast"
    assert choose(replace(SIZES, executors=2), replace(SIZES, executors=2)).exchange == "shuffle"


def test_ties_are_shuffled():
    # So that the driver holds nothing.
    tie = replace(SIZES, executors=1, needed_rows=200)
    assert choose(tie, tie).exchange == "shuffle"


@pytest.mark.parametrize("side", ["users", "products"])
def test_broadcast_limit_of_the_driver(side):
    # Every block needs every row, so a broadcast is cheaper; 64 bytes per row.
    at_limit = HalfStepSizes(BROADCAST_LIMIT // 64, BROADCAST_LIMIT, 0, rank=16, executors=1)
    above_limit = replace(at_limit, source_rows=at_limit.source_rows + 1)
    other = replace(at_limit, source_rows=10)
    pair = {"users": lambda sizes: (sizes, other), "products": lambda sizes: (other, sizes)}[side]
    assert choose(*pair(at_limit)).exchange == "broadcast"
    choice = choose(*pair(above_limit))
    assert choice.exchange == "shuffle"
    assert "256.0 MiB of the driver's memory (limit 256.0 MiB)" in choice.reason


def test_reason_gives_both_sizes():
    rows = MIB // 40  # nearly one mebibyte
    sizes = HalfStepSizes(rows, 3 * rows, 1, rank=10, executors=4)
    assert choose(sizes, sizes).reason == (
        "6.0 MiB per iteration by shuffle, 10.0 MiB by broadcast"
    )


# ------------------------------------------------------------------ with cores and memory

#: 60,000 users, 15,000 products, 4.4 million ratings at rank 50: 13 GFlop a half-step.
LARGE = (
    HalfStepSizes(60_000, 120_000, 4_400_000, rank=50, executors=1, blocks=8, flops=13e9),
    HalfStepSizes(15_000, 100_000, 4_400_000, rank=50, executors=1, blocks=8, flops=13e9),
)
MACHINE = Resources(cores=8, threads=8, task_bytes=16 << 30, seconds_per_flop=2e-11)


def test_seconds_per_iteration():
    seconds = seconds_per_iteration(*LARGE, MACHINE)
    work = 2 * 13e9 * 2e-11 / 8
    assert seconds["local"] == pytest.approx(work)
    # Two jobs of eight tasks at once, and 220,000 rows of 200 bytes at 500 MB/s.
    assert seconds["shuffle"] == pytest.approx(work + 2 * (0.02 + 0.005) + 220_000 * 200 / 5e8)
    assert seconds["broadcast"] == pytest.approx(work + 2 * (0.02 + 0.005) + 75_000 * 400 / 5e8)


@pytest.mark.parametrize(
    ("resources", "chosen"),
    [
        (MACHINE, "local"),
        (replace(MACHINE, threads=1), "broadcast"),  # one core of eight
        (replace(MACHINE, threads=1, seconds_per_flop=1e-13), "local"),  # next to no work
        (replace(MACHINE, task_bytes=512 << 20), "broadcast"),  # it does not fit
        (replace(MACHINE, cores=800, threads=8), "local"),  # only eight blocks
        (replace(MACHINE, threads=4, seconds_per_flop=2e-10), "broadcast"),
        (replace(MACHINE, threads=4, seconds_per_flop=2e-12), "local"),
    ],
)
def test_local_is_chosen_if_it_fits_and_is_fastest(resources, chosen):
    choice = choose(*LARGE, resources)
    assert choice.exchange == chosen
    seconds = seconds_per_iteration(*LARGE, resources)
    needed = local_bytes(*LARGE, resources.threads)
    if chosen == "local":
        for name, value in seconds.items():
            assert f"{value:.2g} s by {name}" in choice.reason
        assert f"needs {readable_bytes(needed)} (limit" in choice.reason
    else:
        assert choice.reason.startswith(choose(*LARGE).reason + "; not local: ")


def test_local_memory_grows_with_every_size():
    least = local_bytes(*LARGE, 1)
    users, products = LARGE
    assert local_bytes(*LARGE, 2) > least
    assert local_bytes(replace(users, ratings=9_000_000), products, 1) > least + 4_600_000 * 16
    assert local_bytes(replace(users, source_rows=90_000), products, 1) > least + 30_000 * 400
    wide = [replace(sizes, rank=100) for sizes in LARGE]
    assert local_bytes(*wide, 1) > least + 75_000 * 200


@given(users=sizes, products=sizes, gib=st.integers(0, 1000), threads=st.integers(1, 64))
def test_local_is_never_chosen_without_enough_memory(users, products, gib, threads):
    resources = Resources(8, threads, gib << 30, 1e-10)
    choice = choose(users, products, resources)
    if local_bytes(users, products, threads) > gib << 29:
        assert choice.exchange == choose(users, products).exchange
        assert "not local: one task needs" in choice.reason
