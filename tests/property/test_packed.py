"""Packed ratings equal the original ratings bit for bit."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from rddals.blocks.codes import MAX_CODES, encode_ratings
from rddals.blocks.packed import PackedRatings
from rddals.blocks.ratings import RatingBlock

#: Stars, counts, any finite values, and both zeros.
VALUES = {
    "stars": st.integers(1, 10).map(lambda halves: halves / 2),
    "counts": st.integers(0, 300),
    "any": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "zeros": st.sampled_from([0.0, -0.0]),
}
ratings = st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.lists(VALUES[kind], max_size=60))
near = st.integers(-5, 5)
ids = near | st.integers(-(2**31), 2**31 - 1) | st.integers(65530, 65540)


def bits(values):
    return np.asarray(values, np.float32).view(np.uint32)


@given(ratings)
def test_codes_decode_to_the_ratings(values):
    values = np.array(values, np.float32)
    codes, scale = encode_ratings(values)
    assert scale is not None
    assert codes.dtype == np.uint8
    np.testing.assert_array_equal(bits(scale), np.unique(bits(values)))
    np.testing.assert_array_equal(bits(scale[codes] if len(codes) else []), bits(values))


@given(st.sampled_from([1.0, 0.1]), st.integers(MAX_CODES - 1, MAX_CODES + 2))
def test_at_most_256_values_are_coded_as_bytes(step, different):
    values = (np.arange(different) * step).astype(np.float32)
    codes, scale = encode_ratings(np.tile(values, 40))
    assert (scale is None) == (different > MAX_CODES)
    if scale is None:
        np.testing.assert_array_equal(codes, np.tile(values, 40))


@given(st.lists(st.tuples(near, ids), max_size=50), ratings, npst.arrays(np.intp, 8, elements=near))
def test_packing_round_trips(pairs, values, chosen):
    size = min(len(pairs), len(values))
    users, products = np.array(pairs[:size], np.int32).reshape(-1, 2).T
    block = RatingBlock(users, products, np.array(values[:size], np.float32))
    packed = PackedRatings.of(block)
    rows = chosen % size if size else chosen[:0]
    for got, want in (
        (packed.unpacked(), block),
        (
            packed.take(rows).unpacked(),
            RatingBlock(users[rows], products[rows], block.ratings[rows]),
        ),
    ):
        assert got.users.dtype == got.products.dtype == np.int32
        np.testing.assert_array_equal(got.users, want.users)
        np.testing.assert_array_equal(got.products, want.products)
        np.testing.assert_array_equal(bits(got.ratings), bits(want.ratings))


def test_close_ids_and_few_ratings_take_five_bytes():
    ids = np.arange(1000, dtype=np.int32)
    packed = PackedRatings.of(RatingBlock(ids + 10**9, ids - 500, ids.astype(np.float32) % 5))
    arrays = (packed.users, packed.products, packed.codes)
    assert sum(array.itemsize for array in arrays) == 5
