"""The contract on every partitioner of the package, and on custom ones."""

from __future__ import annotations

import functools
import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from partitioner_contract import PartitionerContract
from partitioners import (
    DegreeBalancedPartitioner,
    FunctionPartitioner,
    HashPartitioner,
    LocalityPartitioner,
    Partitioner,
    RangePartitioner,
)

MANY = np.arange(10_000) * 3


class TestHash(PartitionerContract):
    def make(self):
        return HashPartitioner(7)

    def make_different(self):
        return HashPartitioner(8)


class TestRange(PartitionerContract):
    def make(self):
        return RangePartitioner([-20, 0, 0, 33, 2**40])

    def make_different(self):
        return RangePartitioner([-20, 0, 1, 33, 2**40])


class TestRangeFittedFromMany(PartitionerContract):
    def make(self):
        return RangePartitioner.fit(MANY, 3_000)

    def make_different(self):
        return RangePartitioner.fit(MANY + 1, 3_000)


class TestDegreeBalanced(PartitionerContract):
    def make(self):
        return DegreeBalancedPartitioner([5, -3, 2**40], [0, 2, 1], [-(2**62), 2**62])

    def make_different(self):
        return DegreeBalancedPartitioner([5, -3, 2**40], [0, 2, 0], [-(2**62), 2**62])


class TestDegreeBalancedFittedFromMany(PartitionerContract):
    counts = 10_000 // np.arange(1, 10_001)

    def make(self):
        return DegreeBalancedPartitioner.fit(MANY, self.counts, 100)

    def make_different(self):
        return DegreeBalancedPartitioner.fit(MANY, self.counts[::-1], 100)


class TestLocality(PartitionerContract):
    def make(self):
        return LocalityPartitioner([5, -3, 2**40], [0, 2, 1], 5)

    def make_different(self):
        return LocalityPartitioner([5, -3, 2**40], [0, 2, 0], 5)


class TestLocalityFittedFromMany(PartitionerContract):
    def make(self):
        return LocalityPartitioner.fit(MANY, MANY // 9, 100)

    def make_different(self):
        return LocalityPartitioner.fit(MANY, MANY // 9, 101)


def last_digit(id_: int) -> int:
    return id_ % 10


def first_bits(ids):
    return (ids >> 60) & 3


class TestFunction(PartitionerContract):
    def make(self):
        return FunctionPartitioner(10, last_digit)

    def make_different(self):
        return FunctionPartitioner(11, last_digit)


class TestVectorizedFunction(PartitionerContract):
    def make(self):
        return FunctionPartitioner(4, first_bits, vectorized=True)

    def make_different(self):
        return FunctionPartitioner(4, last_digit, vectorized=True)


class TestLambda(PartitionerContract):
    three = 3
    function = staticmethod(lambda id_, three=three: id_ % three)
    another = staticmethod(lambda id_, three=three: id_ % three)

    def make(self):
        return FunctionPartitioner(3, self.function)

    def make_different(self):
        return FunctionPartitioner(3, self.another)

    @staticmethod
    def dumps(value):
        return cloudpickle().dumps(value)


class ModuloByTable(Partitioner):
    """A custom partitioner with array attributes, which defines no equality or pickling."""

    def __init__(self, table):
        table = np.asarray(table, dtype=np.int32)
        super().__init__(int(table.max()) + 1)
        self.table = table

    def _place(self, ids):
        return self.table[ids % self.table.size]


class TestCustom(PartitionerContract):
    def make(self):
        return ModuloByTable([2, 0, 1, 1])

    def make_different(self):
        return ModuloByTable([2, 0, 1, 0])


@functools.cache
def cloudpickle():
    try:
        import cloudpickle
    except ImportError:
        cloudpickle = pytest.importorskip("pyspark.cloudpickle")
    return cloudpickle


def how_to_contract():
    """Return the test class of the how-to page."""
    page = Path(__file__).parents[2] / "docs/how-to/write-a-partitioner.md"
    examples = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    names = {"__name__": "shelves"}
    with redirect_stdout(io.StringIO()):
        for example in examples:
            if "class " in example:
                exec(example, names)
    return names["TestShelves"]


class TestHowTo(how_to_contract()):
    @staticmethod
    def dumps(value):
        return cloudpickle().dumps(value)  # no process can import its class
