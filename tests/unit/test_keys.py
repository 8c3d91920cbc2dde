import subprocess
import sys
from enum import Enum, IntEnum

import numpy as np
import pytest

from rddals.blocks.ratings import RatingBlock
from rddals.indexing.keys import CodedRatings, Coder, Keys, bucket_of, checked_key, in_id_order

NAMES = ["ann", "bob", "", "žofie", "ann "]


def test_buckets_are_the_same_in_every_process():
    code = "from rddals.indexing.keys import bucket_of; print(bucket_of(['ann', 'bob', 2**40], 97))"
    ran = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert ran == {f"{bucket_of(['ann', 'bob', 2**40], 97)}\n"}


def test_buckets_are_balanced():
    counts = np.bincount(bucket_of((f"user-{i}" for i in range(20_000)), 8), minlength=8)
    assert counts.sum() == 20_000
    assert counts.max() < 1.1 * counts.mean()
    assert bucket_of([], 3).tolist() == []
    assert set(bucket_of(NAMES, 1).tolist()) == {0}


@pytest.mark.parametrize(
    ("key", "checked"),
    [("ann", "ann"), (np.str_("ann"), "ann"), (7, 7), (np.int16(7), 7), (-(2**63), -(2**63))],
)
def test_valid_keys(key, checked):
    assert checked_key(key) == checked
    assert type(checked_key(key)) is type(checked)


class Colour(str, Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


def test_enum_member_is_its_value():
    assert checked_key(Colour.RED) == "red" and type(checked_key(Colour.RED)) is str
    assert checked_key(Size.LARGE) == 3 and type(checked_key(Size.LARGE)) is int


@pytest.mark.parametrize("key", [None, 1.0, True, b"ann", 2**63, ("a",), float("nan"), "\ud800"])
def test_invalid_keys_raise(key):
    with pytest.raises(ValueError, match=r"neither a string nor|not fit 64 bits|not valid Unicode"):
        checked_key(key)


@pytest.mark.parametrize("other", [True, 1.0])
def test_values_equal_to_a_key_of_another_type_raise(other):
    coder = Coder()
    coder.code([1, 2])
    with pytest.raises(ValueError, match=f"{other} is neither a string nor an integer"):
        coder.code([2, other])


def test_codes_follow_the_order_of_appearance():
    coder = Coder()
    assert coder.code(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert coder.code(["c", "a"]).tolist() == [2, 1]
    assert coder.keys() == ["b", "a", "c"]


def test_codes_become_ids():
    ratings = RatingBlock.from_rows([(0, 0, 1.0), (1, 0, 2.0), (2, 1, 3.0), (0, 1, 4.0)])
    coded = CodedRatings(ratings, (np.array([1, 0, 1]), np.array([0, 0])))
    ids = ({0: np.array([10]), 1: np.array([21, 20])}, {0: np.array([5, 6])})
    identified = coded.with_ids(ids)
    assert identified.users.tolist() == [21, 10, 20, 21]
    assert identified.products.tolist() == [5, 5, 6, 6]
    assert identified.ratings.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_distinct_keys_are_ranked():
    keys = Keys(in_id_order(["b", "a", "c"]), in_id_order([3, 2**40]))
    assert (sorted(keys.users), sorted(keys.products)) == (["a", "b", "c"], [3, 2**40])
    for side, line in enumerate((keys.users, keys.products)):
        assert [keys.rank(side, key) for key in line] == list(range(len(line)))
    assert [keys.rank(0, key) for key in ("d", "", 3)] == [None] * 3
    assert [keys.rank(1, key) for key in (4, "3")] == [None] * 2
    assert Keys([], []).rank(0, "a") is None


@pytest.mark.parametrize("buckets", [1, 2, 7, 200])
def test_buckets_are_contiguous_in_id_order(buckets):
    line = in_id_order(f"user-{i}" for i in range(500))
    assert sorted(line) == sorted(f"user-{i}" for i in range(500))
    assert (np.diff(bucket_of(line, buckets)) >= 0).all()
    assert in_id_order(reversed(line)) == line
