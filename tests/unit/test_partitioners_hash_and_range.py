"""Placement and errors of the simple partitioners, and imports of the package."""

from __future__ import annotations

import doctest
import importlib
import os
import pickle
import pkgutil
import subprocess
import sys

import numpy as np
import pytest

import partitioners
from partitioners import (
    DegreeBalancedPartitioner,
    FunctionPartitioner,
    HashPartitioner,
    RangePartitioner,
)


def test_imports_numpy_alone():
    program = "import partitioners, sys; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": f"{partitioners.__path__[0]}/.."},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {"numpy", "partitioners"} <= set(loaded)
    assert not {"rddals", "pyspark", "py4j", "scipy", "cloudpickle"} & set(loaded)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(partitioners.__path__)])
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(f"partitioners.{module}"))
    assert result.failed == 0


# Java's `x % mod`, plus mod if that is negative; computed by hand.
@pytest.mark.parametrize(
    ("id_", "num_blocks", "block"),
    [
        (0, 1, 0),
        (-1, 1, 0),
        (0, 3, 0),
        (1, 3, 1),
        (3, 3, 0),
        (5, 3, 2),
        (-1, 3, 2),
        (-2, 3, 1),
        (-3, 3, 0),
        (-4, 3, 2),
        (-7, 10, 3),
        (2**31 - 1, 10, 7),
        (-(2**31), 10, 2),
        (-(2**31), 3, 1),
        (-(2**31), 2**31 - 1, 2**31 - 2),
        (2**31 - 1, 2**31 - 1, 0),
        (2**63 - 1, 1000, 807),
        (-(2**63), 1000, 192),
    ],
)
def test_hash_is_javas_non_negative_mod(id_, num_blocks, block):
    assert HashPartitioner(num_blocks).block_of([id_]).tolist() == [block]


def test_range_bounds_are_first_ids():
    blocks = RangePartitioner([-5, 10, 10, 20]).block_of(
        [-(2**63), -6, -5, 9, 10, 19, 20, 2**63 - 1]
    )
    assert blocks.tolist() == [0, 0, 1, 1, 3, 3, 4, 4]


def test_range_without_bounds_is_one_block():
    assert RangePartitioner([]).num_blocks == 1
    assert RangePartitioner([]).block_of([-1, 0, 1]).tolist() == [0, 0, 0]


def test_range_copies_its_bounds():
    bounds = np.array([1, 2])
    partitioner = RangePartitioner(bounds)
    bounds[0] = -9
    assert partitioner.bounds.tolist() == [1, 2]
    for one in (partitioner, pickle.loads(pickle.dumps(partitioner))):
        with pytest.raises(ValueError, match="read-only"):
            one.bounds[0] = 0


@pytest.mark.parametrize(
    ("ids", "num_blocks", "bounds"),
    [
        ([4, 1, 3, 2], 2, [3]),
        ([4, 4, 4, 4, 1, 3, 2, 2], 2, [3]),  # repeated ids count once
        ([10, 20, 30, 40, 50], 2, [30]),
        ([-7, 0, 7], 3, [0, 7]),
        ([1, 2], 5, [1, 1, 2, 2]),
        ([9], 3, [9, 9]),
        ([9], 1, []),
        ([-(2**63), 2**63 - 1], 2, [2**63 - 1]),
    ],
)
def test_range_fit(ids, num_blocks, bounds):
    partitioner = RangePartitioner.fit(ids, num_blocks)
    assert partitioner.bounds.tolist() == bounds
    assert partitioner.num_blocks == num_blocks


def test_range_places_unseen_ids_by_its_bounds():
    partitioner = RangePartitioner.fit([0, 10, 20, 30, 40, 50], 3)
    assert partitioner.block_of([-99, 15, 25, 39, 45, 99]).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ([1, 3, 2], ValueError, r"bounds must ascend, got 2 after 3: pass np\.sort\(bounds\)"),
        ([1.5], TypeError, r"bounds must be integers, got 1\.5 \(float\)"),
        (5, ValueError, r"bounds must be one-dimensional, got 5 of shape \(\)"),
        ([2**63], ValueError, "bounds must fit in int64, got 9223372036854775808"),
    ],
)
def test_range_with_invalid_bounds_raises(bounds, error, message):
    with pytest.raises(error, match=message):
        RangePartitioner(bounds)


def test_range_repr():
    assert repr(RangePartitioner([])) == "RangePartitioner(num_blocks=1, bounds=[])"
    assert repr(RangePartitioner([1, 2, 3, 4])) == (
        "RangePartitioner(num_blocks=5, bounds=[1, 2, 3, 4])"
    )
    assert repr(RangePartitioner(range(100))) == (
        "RangePartitioner(num_blocks=101, bounds=[0, 1, 2, ..., 99])"
    )


def test_repr_is_short_when_fitted_from_a_million_ids():
    ids = np.arange(1_000_000)
    assert repr(RangePartitioner.fit(ids, 10_000)) == (
        "RangePartitioner(num_blocks=10000, bounds=[100, 200, 300, ..., 999900])"
    )
    assert repr(DegreeBalancedPartitioner.fit(ids, ids, 10)) == (
        "DegreeBalancedPartitioner(num_blocks=10, table_size=0)"
    )


MAKERS = [
    HashPartitioner,
    lambda n: RangePartitioner.fit([1, 2], n),
    lambda n: DegreeBalancedPartitioner.fit([1, 2], [1, 1], n),
    lambda n: FunctionPartitioner(n, abs),
]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("num_blocks", "error", "message"),
    [
        (0, ValueError, "num_blocks must be between 1 and 2147483647, got 0: "),
        (-3, ValueError, "num_blocks must be between 1 and 2147483647, got -3: "),
        (2**31, ValueError, "got 2147483648: "),
        (True, TypeError, r"num_blocks must be an integer, got True \(bool\): "),
        (np.True_, TypeError, r"num_blocks must be an integer, got .*True.*bool"),
        (4.0, TypeError, r"num_blocks must be an integer, got 4\.0 \(float\): "),
        ("4", TypeError, r"num_blocks must be an integer, got '4' \(str\): "),
        (None, TypeError, r"num_blocks must be an integer, got None \(NoneType\): "),
    ],
)
def test_invalid_num_blocks_raises(make, num_blocks, error, message):
    with pytest.raises(error, match=message):
        make(num_blocks)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("integer", [np.int8, np.uint64, np.int64])
def test_num_blocks_may_be_a_numpy_integer(make, integer):
    assert make(integer(3)) == make(3)


@pytest.mark.parametrize(
    "fit",
    [
        lambda ids: RangePartitioner.fit(ids, 2),
        lambda ids: DegreeBalancedPartitioner.fit(ids, ids, 2),
    ],
)
def test_empty_fit_raises(fit):
    with pytest.raises(
        ValueError, match=r"at least one id to fit from, got none: .*HashPartitioner"
    ):
        fit([])
