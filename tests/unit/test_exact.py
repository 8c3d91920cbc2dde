from fractions import Fraction

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from rddals.blocks.exact import exact_sum

#: All there are: denormal, negative zero and huge ones.
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
def test_it_is_the_sum_of_the_fractions_that_the_floats_are(values):
    assert exact_sum(np.array(values, dtype=np.float32)) == fractions(values)


@given(FLOATS, st.randoms(use_true_random=False), st.integers(0, 30))
def test_neither_order_nor_split_matters(values, random, cut):
    array = np.array(values, dtype=np.float32)
    random.shuffle(values)
    first, rest = (np.array(part, dtype=np.float32) for part in (values[:cut], values[cut:]))
    assert exact_sum(first) + exact_sum(rest) == exact_sum(array)


def test_many_of_the_largest_do_not_overflow():
    values = np.full(100_000, HUGE, dtype=np.float32)
    assert exact_sum(values) == 100_000 * Fraction(HUGE)


def test_what_a_float_would_lose_is_kept():
    tenths = np.full(1000, 0.1, dtype=np.float32)
    assert exact_sum(tenths) == 1000 * Fraction(float(np.float32(0.1)))
    assert exact_sum(tenths) != Fraction(float(tenths.sum()))


def test_the_array_stays_as_it_is():
    values = np.array([3.5, -0.0, TINY], dtype=np.float32)
    before = values.tobytes()
    exact_sum(values)
    assert values.tobytes() == before
