"""Custom functions: how they are called, checked and compared."""

from __future__ import annotations

import gc
import pickle
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from partitioners import FunctionPartitioner
from partitioners.function import TOKENS


def is_odd(id_):
    return id_ % 2


@dataclass(frozen=True)
class Modulo:
    divisor: int

    def __call__(self, id_):
        return id_ % self.divisor

    def of(self, id_):
        return id_ % self.divisor


def test_called_once_per_distinct_id_with_a_python_int():
    seen = []

    def third(id_):
        seen.append(id_)
        return id_ % 3

    assert FunctionPartitioner(3, third).block_of(np.array([5, -1, 5, 5, 0])).tolist() == [
        2,
        2,
        2,
        2,
        0,
    ]
    assert sorted(seen) == [-1, 0, 5]
    assert {type(id_) for id_ in seen} == {int}


def test_vectorized_is_called_once_with_int64():
    seen = []

    def third(ids):
        seen.append(ids)
        return ids % 3

    partitioner = FunctionPartitioner(3, third, vectorized=True)
    assert partitioner.block_of(np.array([5, 5, 1], dtype=np.uint8)).tolist() == [2, 2, 1]
    assert partitioner.block_of([]).tolist() == []
    assert [(ids.dtype, ids.tolist()) for ids in seen] == [(np.dtype(np.int64), [5, 5, 1])]


def test_vectorized_cannot_write_to_the_callers_ids():
    def overwrite_ids(ids):
        ids %= 3
        return ids

    ids = np.array([5, 6])
    with pytest.raises(ValueError, match="read-only"):
        FunctionPartitioner(3, overwrite_ids, vectorized=True).block_of(ids)
    assert ids.tolist() == [5, 6]
    assert ids.flags.writeable


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint64, object])
def test_vectorized_may_return_any_integers(dtype):
    partitioner = FunctionPartitioner(300, lambda ids: (ids % 3).astype(dtype), vectorized=True)
    assert partitioner.block_of([-1, 4]).tolist() == [2, 1]
    assert partitioner.block_of([-1, 4]).dtype == np.int32


def test_vectorized_may_return_a_list():
    assert FunctionPartitioner(2, lambda ids: [1] * len(ids), True).block_of([7, 8]).tolist() == [
        1,
        1,
    ]


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (4, ValueError, "function returned block 4 for id 30, outside 0 to 3: return block % 4"),
        (-1, ValueError, "function returned block -1 for id 30, outside 0 to 3: return block % 4"),
        (2**40, ValueError, "function returned block 1099511627776 for id 30"),
        (1.5, TypeError, r"function returned 1\.5 \(float\) for id 30: return an integer"),
        (None, TypeError, r"function returned None \(NoneType\) for id 30: return an integer"),
        ("1", TypeError, r"function returned '1' \(str\) for id 30: return an integer"),
        (True, TypeError, r"function returned True \(bool\) for id 30: return an integer"),
    ],
)
def test_invalid_block_raises_with_its_id(vectorized, wrong, error, message):
    def place(id_):
        return wrong if id_ == 30 else 0

    def place_all(ids):
        blocks = [place(id_) for id_ in ids.tolist()]
        return np.array(blocks, dtype=np.int64 if error is ValueError else object)

    partitioner = FunctionPartitioner(4, place_all if vectorized else place, vectorized)
    with pytest.raises(error, match=message):
        partitioner.block_of([10, 30, 20])


def test_vectorized_floats_raise():
    with pytest.raises(TypeError, match=r"returned 0\.5 \(float\) for id 1: .* // instead of /"):
        FunctionPartitioner(4, lambda ids: ids / 2, vectorized=True).block_of([1, 2])


@pytest.mark.parametrize("wrong", [0, [0], [[0, 1]], [0, 1, 1]])
def test_vectorized_result_of_another_shape_raises(wrong):
    partitioner = FunctionPartitioner(4, lambda ids: np.array(wrong), vectorized=True)
    with pytest.raises(ValueError, match=r"returned shape \(.*\) for ids of shape \(2,\): .*False"):
        partitioner.block_of([1, 2])


def test_errors_of_the_function_propagate():
    with pytest.raises(ZeroDivisionError):
        FunctionPartitioner(4, lambda id_: 1 // id_).block_of([0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 7), "function must be callable, got 7: "),
        ((4, is_odd, 1), "vectorized must be True or False, got 1: "),
        (
            (4, type("Unhashable", (Modulo,), {"__hash__": None})(3)),
            "function must be hashable .*lambda",
        ),
    ],
)
def test_constructor_with_invalid_arguments_raises(arguments, message):
    with pytest.raises(TypeError, match=message):
        FunctionPartitioner(*arguments)


def test_equal_by_function_object():
    assert FunctionPartitioner(2, is_odd) == FunctionPartitioner(2, is_odd)
    assert FunctionPartitioner(2, is_odd) != FunctionPartitioner(2, is_odd, vectorized=True)
    first, second = ((lambda id_: id_ % 2) for _ in range(2))
    assert FunctionPartitioner(2, first) != FunctionPartitioner(2, second)


def test_equal_callables_make_equal_partitioners():
    assert FunctionPartitioner(3, Modulo(3)) == FunctionPartitioner(3, Modulo(3))
    assert FunctionPartitioner(3, Modulo(3)) != FunctionPartitioner(3, Modulo(2))
    modulo = Modulo(3)
    bound = FunctionPartitioner(3, modulo.of)
    assert bound == FunctionPartitioner(3, modulo.of)
    assert pickle.loads(pickle.dumps(bound)) == bound


def test_pickled_copies_are_equal_to_the_original():
    cloudpickle = pytest.importorskip("pyspark.cloudpickle")
    function = lambda id_: id_ % 2  # noqa: E731 - pickled by value
    original = FunctionPartitioner(2, function)
    sent = cloudpickle.dumps((original, function))  # unpickled, a copy and the function it holds
    pairs = [pickle.loads(sent), pickle.loads(sent)]
    pairs.append(pickle.loads(cloudpickle.dumps(pairs[0])))
    copies, functions = map(list, zip(*pairs, strict=True))
    copies.append(FunctionPartitioner(2, functions[1]))
    assert len({original, *copies}) == 1
    assert all(copied is not function for copied in functions)


def test_function_imported_by_name_has_one_token():
    local = FunctionPartitioner(2, is_odd)
    foreign, tokens = re.subn(rb"[0-9a-f]{32}", b"0" * 32, pickle.dumps(local))
    assert tokens == 1
    assert pickle.loads(foreign) == local


def test_functions_are_not_kept_alive():
    gc.collect()  # free functions of earlier tests
    before = len(TOKENS)
    partitioner = FunctionPartitioner(2, lambda id_: 0)
    assert len(TOKENS) == before + 1
    del partitioner
    gc.collect()
    assert len(TOKENS) == before


@pytest.mark.parametrize(
    ("function", "name"), [(is_odd, "is_odd"), (Modulo(2), "Modulo"), (partial(pow, 2), "partial")]
)
def test_repr(function, name):
    text = f"FunctionPartitioner(num_blocks=2, function={name}, vectorized=False)"
    assert repr(FunctionPartitioner(2, function)) == text
