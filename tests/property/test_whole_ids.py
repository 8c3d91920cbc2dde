"""Ids are whole numbers, whatever their type: others are refused, none is rounded."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rddals.blocks.ratings import RatingBlock
from rddals.errors import RatingError

int32 = st.integers(-(2**31), 2**31 - 1)
#: Numbers that are not whole, near an int32.
fractions = st.tuples(st.integers(-(2**31), 2**31 - 2), st.sampled_from([0.5, 0.25, 2.0**-20])).map(
    sum
)
KINDS = [int, float, str, np.int64, np.float64, Decimal, Fraction, lambda value: f"{value}.0"]


@given(st.lists(st.tuples(int32, st.sampled_from(KINDS)), min_size=1))
def test_whole_ids_of_any_type_are_kept(ids):
    rows = [(kind(id_), id_, 1.0) for id_, kind in ids]
    block = RatingBlock.from_rows(rows)
    np.testing.assert_array_equal(block.users, block.products)


@given(
    st.lists(st.tuples(int32, st.sampled_from(KINDS))),
    fractions,
    st.sampled_from([float, str, np.float64, Decimal, Fraction]),
    st.integers(0),
)
def test_a_fractional_id_of_any_type_raises(ids, fraction, kind, place):
    values = [as_kind(id_) for id_, as_kind in ids]
    place %= len(values) + 1
    values.insert(place, kind(fraction))
    rows = [(1, value, 1.0) for value in values]
    with pytest.raises(RatingError, match=f"row {place}: product id"):
        RatingBlock.from_rows(rows)


@given(st.lists(int32, max_size=20), fractions)
def test_a_fractional_id_in_a_column_raises(ids, fraction):
    column = np.array([*ids, fraction])
    ones = np.ones(len(column))
    with pytest.raises(RatingError, match=f"row {len(ids)}: user id .* is not a whole number"):
        RatingBlock.from_columns(column, ones, ones)
    whole = RatingBlock.from_columns(column[:-1], ones[:-1], ones[:-1])
    np.testing.assert_array_equal(whole.users, ids)
