from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from rddals.blocks.exact import exact_sum

#: All finite float32 values: denormals, negative zero and huge ones included.
FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=30)
TINY, LEAST, HUGE = 2.0**-149, 2.0**-126, float(np.finfo(np.float32).max)


def fractions(values):
    return sum(map(Fraction, values), Fraction(0))


@given(FLOATS)
@example([TINY])
@example([-TINY, LEAST, HUGE])
@example([HUGE, 1.0, -HUGE])
@example([-0.0, 0.0, -0.0])
@example([])
def test_sum_equals_the_sum_of_fractions(values):
    assert exact_sum(np.array(values, dtype=np.float32)) == fractions(values)


@given(FLOATS, st.randoms(use_true_random=False), st.integers(0, 30))
def test_order_and_split_do_not_matter(values, random, cut):
    array = np.array(values, dtype=np.float32)
    random.shuffle(values)
    first, rest = (np.array(part, dtype=np.float32) for part in (values[:cut], values[cut:]))
    assert exact_sum(first) + exact_sum(rest) == exact_sum(array)


def test_sum_of_largest_floats_does_not_overflow():
    values = np.full(100_000, HUGE, dtype=np.float32)
    assert exact_sum(values) == 100_000 * Fraction(HUGE)


def test_sum_loses_no_precision():
    tenths = np.full(1000, 0.1, dtype=np.float32)
    assert exact_sum(tenths) == 1000 * Fraction(float(np.float32(0.1)))
    assert exact_sum(tenths) != Fraction(float(tenths.sum()))


def test_input_array_is_not_modified():
    values = np.array([3.5, -0.0, TINY], dtype=np.float32)
    before = values.tobytes()
    exact_sum(values)
    assert values.tobytes() == before
