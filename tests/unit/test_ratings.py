import pickle
from collections import namedtuple
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from rddals.blocks.ratings import RatingBlock
from rddals.errors import RatingError, RatingTypeError

Rating = namedtuple("Rating", "user product rating")
MIN, MAX = -(2**31), 2**31 - 1
GOOD = (1, 2, 3.0)


def triples(block):
    return list(
        zip(block.users.tolist(), block.products.tolist(), block.ratings.tolist(), strict=True)
    )


def assert_types(block):
    assert block.users.dtype == block.products.dtype == np.int32
    assert block.ratings.dtype == np.float32


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((1, 2, 3.5), (1, 2, 3.5)),
        ([1, 2, 3.5], (1, 2, 3.5)),
        (Rating(1, 2, 3.5), (1, 2, 3.5)),
        (np.array([1, 2, 3.5]), (1, 2, 3.5)),
        ((-1, 0, 0), (-1, 0, 0.0)),
        ((MIN, MAX, -2), (MIN, MAX, -2.0)),
        ((1.0, -1.0, 1), (1, -1, 1.0)),
        ((float(MAX), float(MIN), 1), (MAX, MIN, 1.0)),
        (("1.0", " -2.00", 1), (1, -2, 1.0)),
        (("1", " 2 ", "3.5"), (1, 2, 3.5)),
        (("-7", "2", "1e2"), (-7, 2, 100.0)),
        ((True, False, True), (1, 0, 1.0)),
        ((np.int64(1), np.int8(2), np.float32(3.5)), (1, 2, 3.5)),
        ((np.uint64(1), np.float64(2), np.float16(3.5)), (1, 2, 3.5)),
        ((np.array(1), np.array(2), np.array(3.5)), (1, 2, 3.5)),
        ((Decimal("1.0"), Fraction(4, 2), Decimal("3.5")), (1, 2, 3.5)),
        ((1, 2, np.finfo(np.float32).max), (1, 2, float(np.finfo(np.float32).max))),
        ((1, 2, 1e-60), (1, 2, 0.0)),
    ],
)
def test_values_of_rows_are_converted(row, expected):
    for rows in ([row], [row, GOOD], [GOOD, row]):
        block = RatingBlock.from_rows(rows)
        assert_types(block)
        assert triples(block) == [expected if r is row else GOOD for r in rows]


BAD_ROWS = [
    ((1, 2, float("nan")), RatingError, "rating nan"),
    ((1, 2, float("inf")), RatingError, "rating inf"),
    ((1, 2, -float("inf")), RatingError, "rating -inf"),
    ((1, 2, "nan"), RatingError, "rating 'nan'"),
    ((1, 2, 1e39), RatingError, "rating 1e+39"),
    ((1, 2, -1e39), RatingError, "rating -1e+39"),
    ((1, 2, None), RatingError, "rating None"),
    ((1, 2, "three"), RatingError, "rating 'three'"),
    ((1, 2, (3,)), RatingError, "rating (3,)"),
    ((1, 2, 3j), RatingError, "rating 3j"),
    ((1, 2, np.float64("nan")), RatingError, "nan"),
    ((None, 2, 3.0), RatingError, "user id None"),
    ((1, None, 3.0), RatingError, "product id None"),
    (("a", 2, 3.0), RatingError, "user id 'a'"),
    (("1.5", 2, 3.0), RatingError, "user id '1.5'"),
    ((1.2, 2, 3.0), RatingError, "user id 1.2 is not an integer"),
    ((1, np.float32(2.5), 3.0), RatingError, "2.5"),
    ((1, Decimal("2.5"), 3.0), RatingError, "product id Decimal('2.5') is not an integer"),
    ((Fraction(1, 2), 2, 3.0), RatingError, "user id Fraction(1, 2)"),
    ((MAX + 0.5, 2, 3.0), RatingError, "2147483647.5"),
    ((1, "", 3.0), RatingError, "product id ''"),
    ((float("nan"), 2, 3.0), RatingError, "user id nan"),
    ((1, float("inf"), 3.0), RatingError, "product id inf"),
    ((np.float64("nan"), 2, 3.0), RatingError, "nan"),
    ((MAX + 1, 2, 3.0), RatingError, "Ratings id 2147483648 exceeds max integer value"),
    ((1, MIN - 1, 3.0), RatingError, "Ratings id -2147483649 is below min integer value"),
    ((2**70, 2, 3.0), RatingError, "Ratings id 1180591620717411303424 exceeds"),
    (("3000000000", 2, 3.0), RatingError, "Ratings id 3000000000 exceeds"),
    ((1e12, 2, 3.0), RatingError, "1000000000000"),
    (((1,), 2, 3.0), RatingError, "user id (1,)"),
    ((1, 2), RatingError, "(1, 2) is not a rating"),
    ((1, 2, 3.0, 4), RatingError, "(1, 2, 3.0, 4) is not a rating"),
    ((), RatingError, "() is not a rating"),
    (np.array(1.0), RatingError, "is not a rating"),
    (7, RatingTypeError, "Expect a Rating or a tuple/list, but got <class 'int'>"),
    (None, RatingTypeError, "but got <class 'NoneType'>"),
    ("123", RatingTypeError, "but got <class 'str'>"),
    ({1: 2}, RatingTypeError, "but got <class 'dict'>"),
    ({1, 2, 3}, RatingTypeError, "but got <class 'set'>"),
]


@pytest.mark.parametrize(("row", "error", "words"), BAD_ROWS, ids=lambda v: None)
@pytest.mark.parametrize("before", [0, 3])
def test_invalid_row_raises_with_its_position(row, error, words, before):
    rows = [GOOD] * before + [row, GOOD]
    with pytest.raises(error) as caught:
        RatingBlock.from_rows(rows, origin="partition 4", first_row=100)
    message = str(caught.value)
    assert words in message
    assert f"partition 4, row {100 + before}" in message


@pytest.mark.parametrize("value", [10**400, np.array([1.0, 2.0])], ids=["huge", "array"])
def test_rating_of_an_unusual_type_raises(value):
    with pytest.raises(RatingError, match=r"the ratings, row 1.*rating"):
        RatingBlock.from_rows([GOOD, (1, 2, value)])


def test_first_of_several_invalid_rows_is_named():
    rows = [GOOD, (1, None, 1.0), (None, 1, 1.0), "x"]
    with pytest.raises(RatingError, match="row 1: product id None"):
        RatingBlock.from_rows(rows)


def test_no_rows_give_an_empty_block():
    block = RatingBlock.from_rows([])
    assert len(block) == 0
    assert_types(block)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">i8"])
def test_id_columns_of_any_integer_type(dtype):
    ids = np.array([0, 3, 100], dtype=dtype)
    block = RatingBlock.from_columns(ids, ids[::-1], [1, 2, 3])
    assert_types(block)
    assert triples(block) == [(0, 100, 1.0), (3, 3, 2.0), (100, 0, 3.0)]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "g"])
def test_columns_of_any_floating_type(dtype):
    ids = np.array([0, -1, 100], dtype=dtype)
    block = RatingBlock.from_columns(ids, ids, np.array([0.5, -0.5, 2], dtype=dtype))
    assert_types(block)
    assert triples(block) == [(0, 0, 0.5), (-1, -1, -0.5), (100, 100, 2.0)]
    with pytest.raises(RatingError, match=r"row 1: product id 0\.5 is not a whole number"):
        RatingBlock.from_columns(ids, np.array([1, 0.5, 2], dtype=dtype), ids)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i4", "u8", "?"])
def test_rating_columns_need_not_be_floating(dtype):
    block = RatingBlock.from_columns([1, 2], [1, 2], np.array([0, 1], dtype=dtype))
    assert_types(block)
    assert block.ratings.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("dtype", ["i4", "i8", "f8", "f4"])
def test_ends_of_int32_are_valid_ids(dtype):
    ends = np.array([MIN, 0], dtype=dtype)
    assert RatingBlock.from_columns(ends, ends, [1, 1]).users.tolist() == [MIN, 0]
    if dtype != "f4":  # which has no 2**31 - 1
        ends = np.array([MAX, 0], dtype=dtype)
        assert RatingBlock.from_columns(ends, ends, [1, 1]).users.tolist() == [MAX, 0]


NUMBERS = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("users", "products", "ratings", "words"),
    [
        ([1, MAX + 1, 3], NUMBERS, NUMBERS, r"row 1: Ratings id 2147483648 exceeds .* \(user\)"),
        (NUMBERS, [1, 2, MIN - 1], NUMBERS, r"row 2: Ratings id -2147483649 .* \(product\)"),
        (np.array([2**63 + 5] * 3, "u8"), NUMBERS, NUMBERS, "row 0: .*9223372036854775813"),
        (np.array([1, 2, 3e9], "f4"), NUMBERS, NUMBERS, "row 2: .*3000000000"),
        (np.array([1, np.nan, 3]), NUMBERS, NUMBERS, "row 1: user id is nan"),
        (NUMBERS, np.array([1, 2, np.inf]), NUMBERS, "row 2: Ratings id inf exceeds"),
        (NUMBERS, NUMBERS, np.array([1, 2, np.nan]), "row 2: rating nan"),
        (NUMBERS, NUMBERS, np.array([1, -np.inf, 2]), "row 1: rating -inf"),
        (NUMBERS, NUMBERS, np.array([1e39, 2, 3]), r"row 0: rating 1e\+39"),
        (["a", "b", "c"], NUMBERS, NUMBERS, "user ids are of type <U1"),
        (np.array([1, 2, 3], object), NUMBERS, NUMBERS, "user ids are of type object"),
        (NUMBERS, np.array([True] * 3), NUMBERS, "product ids are of type bool"),
        (NUMBERS, NUMBERS, ["1", "2", "3"], "ratings are of type <U1"),
        (NUMBERS, NUMBERS, NUMBERS + 0j, "ratings are of type complex128"),
        (NUMBERS, NUMBERS, np.array(["2020-01-01"] * 3, "M8[D]"), r"ratings are of type datetime"),
        (NUMBERS[:2], NUMBERS, NUMBERS, r"shapes \[\(2,\), \(3,\), \(3,\)\]"),
        (NUMBERS, NUMBERS, NUMBERS[:0], r"shapes \[\(3,\), \(3,\), \(0,\)\]"),
        ([NUMBERS], [NUMBERS], [NUMBERS], r"shapes \[\(1, 3\)"),
        (1, 2, 3, r"shapes \[\(\), \(\), \(\)\]"),
    ],
)
def test_invalid_columns_raise_with_their_position(users, products, ratings, words):
    with pytest.raises(RatingError, match=rf"^part 9.*{words}"):
        RatingBlock.from_columns(users, products, ratings, origin="part 9")


def test_error_names_the_first_invalid_value():
    ratings = np.array([1, np.nan, 1, np.inf])
    with pytest.raises(RatingError, match="row 1: rating nan"):
        RatingBlock.from_columns(np.arange(4), np.arange(4), ratings)


def test_float32_id_at_the_bound_raises():
    with pytest.raises(RatingError, match="exceeds"):
        RatingBlock.from_columns(np.array([2.0**31], np.float32), np.array([1]), np.array([1.0]))


def test_columns_are_not_modified():
    users, products, ratings = np.array([1.0]), np.array([2.0]), np.array([3.5])
    RatingBlock.from_columns(users, products, ratings)
    assert (users[0], products[0], ratings[0]) == (1.0, 2.0, 3.5)


def test_strided_columns():
    table = np.array([[1, 2, 5], [3, 4, 6]], dtype=np.int32)
    block = RatingBlock.from_columns(*table.T)
    assert triples(block) == [(1, 2, 5.0), (3, 4, 6.0)]


def test_concatenate_keeps_the_order():
    blocks = [RatingBlock.from_rows([(i, 2, 3.0), (i, 4, 1.0)]) for i in (5, 3, 9)]
    assert triples(RatingBlock.concatenate(blocks)) == [t for b in blocks for t in triples(b)]
    assert len(RatingBlock.concatenate([])) == 0
    assert_types(RatingBlock.concatenate([]))


def test_rating_block_pickles(small_matrix):
    block = RatingBlock.from_rows(small_matrix)
    assert triples(pickle.loads(pickle.dumps(block))) == list(small_matrix)


# ------------------------------------------------------------------ several ratings for one pair

SEVERAL = RatingBlock.from_rows(
    [(1, 2, 5.0), (-1, 2, 3.0), (1, 2, 1.0), (1, -2, 4.0), (-1, 2, 4.0), (1, 2, 0.0)]
)


@pytest.mark.parametrize(
    ("duplicates", "expected"),
    [
        ("last", [(-1, 2, 4.0), (1, -2, 4.0), (1, 2, 0.0)]),
        ("mean", [(-1, 2, 3.5), (1, -2, 4.0), (1, 2, 2.0)]),
        ("sum", [(-1, 2, 7.0), (1, -2, 4.0), (1, 2, 6.0)]),
    ],
)
def test_duplicates_are_combined(duplicates, expected):
    combined = SEVERAL.combined(duplicates)
    assert sorted(triples(combined)) == expected
    assert_types(combined)


def test_duplicates_are_retained_by_keep():
    assert SEVERAL.combined("keep") is SEVERAL


@pytest.mark.parametrize("duplicates", ["last", "mean", "sum"])
def test_combining_no_ratings(duplicates):
    assert len(RatingBlock.empty().combined(duplicates)) == 0


def test_overflowing_sum_raises():
    ratings = RatingBlock.from_rows([(9, 9, 1.0), (1, 2, 3e38), (1, 2, 3e38)])
    with pytest.raises(RatingError, match="ratings of product 2 by user 1 add up to more than"):
        ratings.combined("sum")
    assert triples(ratings.combined("mean"))[0][2] == np.float32(3e38)
