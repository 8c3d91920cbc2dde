"""Spark's random generator in parallel lanes, against sequential draws."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rddals.blocks.start import mllib_start
from rddals.blocks.xorshift import byteswap64, gaussians, hash_seed, longs

MASK64 = (1 << 64) - 1


def states(state):
    while True:
        state ^= state << 21 & MASK64
        state ^= state >> 35
        state ^= state << 4 & MASK64
        yield state


def sequential_gaussians(seed):
    """Yield normals by the polar method, as `java.util.Random` documents it."""
    draws = states(hash_seed(seed))

    def signed_unit():
        high, low = next(draws) % 2**26, next(draws) % 2**27
        return 2 * ((high << 27) + low) * 2.0**-53 - 1

    while True:
        first, second = signed_unit(), signed_unit()
        square = first * first + second * second
        if 0 < square < 1:
            factor = math.sqrt(-2 * math.log(square) / square)
            yield first * factor
            yield second * factor


# Values of Spark's class in a JVM: XORShiftRandom(seed).nextLong, twice, and nextGaussian.
@pytest.mark.parametrize(
    ("seed", "two_longs", "normal"),
    [
        (0, (2236810499658231116, 1880247635712773362), 1.6034991609278433),
        (1, (2201036318770978408, 8819672148546340389), 1.6845611254444919),
        (-1, (87341357561603782, -7401428064487729366), -1.1760378827493814),
        (42, (1907851442491015307, -8211798166537113192), 2.384479054241165),
        (9223372036854775807, (-6866466478644451627, 5161547190091318579), -0.023841785718521923),
        (-9223372036854775808, (-1389025518444996125, 4495484108528196451), -1.2178111243153018),
    ],
)
def test_draws_equal_sparks(seed, two_longs, normal):
    assert longs(seed, 2) == [long % 2**64 for long in two_longs]
    assert gaussians(seed, 1)[0] == pytest.approx(normal, rel=1e-14)


@pytest.mark.parametrize("count", [1, 2, 3, 64, 1001, 300_001])
def test_lanes_form_one_stream(count):
    expected = np.fromiter(islice(sequential_gaussians(5), count), dtype=float)
    np.testing.assert_allclose(gaussians(5, count), expected, rtol=1e-14, atol=0)


@given(seed=st.integers(-(2**63), 2**64 - 1), count=st.integers(0, 500))
def test_any_seed_and_any_count(seed, count):
    drawn = gaussians(seed, count)
    assert drawn.shape == (count,)
    expected = list(islice(sequential_gaussians(seed), count))
    np.testing.assert_allclose(drawn, expected, rtol=1e-14, atol=0)
    np.testing.assert_array_equal(gaussians(seed + 2**64, count), drawn)


@given(st.integers(0, MASK64), st.integers(0, MASK64))
def test_byteswap_is_one_to_one(one, other):
    assert 0 <= byteswap64(one) <= MASK64
    assert (byteswap64(one) == byteswap64(other)) == (one == other)


@pytest.mark.parametrize("rank", [1, 7, 50])
def test_initial_rows_are_centred_unit_vectors(rank):
    rows = mllib_start(np.arange(1, 4000, 4, np.int32), rank=rank, seed=3, side=0, blocks=4)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert abs(rows.mean()) < 0.05


def test_initial_rows_differ_by_block_side_and_seed():
    starts = [
        mllib_start(np.array([block], np.int32), rank=6, seed=seed, side=side, blocks=3)
        for block in range(3)
        for side in (0, 1)
        for seed in (0, 1, -1, 2**63)
    ]
    assert len({start.tobytes() for start in starts}) == len(starts)


def test_block_without_ids_has_no_initial_rows():
    assert mllib_start(np.empty(0, np.int32), rank=5, seed=1, side=0, blocks=2).shape == (0, 5)
