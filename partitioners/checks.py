"""Every door of the package in one place: what comes in is checked once and leaves as arrays."""

from __future__ import annotations

import operator
from reprlib import repr as short
from typing import NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

INT32_MAX = 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def is_integer(value: object) -> bool:
    """Whether `value` is a Python or NumPy integer; a bool is not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def as_num_blocks(num_blocks: SupportsIndex) -> int:
    """Check a number of blocks: an integer from 1 to the 2**31 - 1 that int32 can number."""
    if not is_integer(num_blocks):
        raise TypeError(
            f"num_blocks must be an integer, got {short(num_blocks)} "
            f"({type(num_blocks).__name__}): pass a whole number of at least 1"
        )
    number = operator.index(num_blocks)
    if not 1 <= number <= INT32_MAX:
        raise ValueError(
            f"num_blocks must be between 1 and {INT32_MAX}, got {number}: "
            "pass the number of blocks to place ids in"
        )
    return number


def as_ids(ids: npt.ArrayLike, name: str = "ids") -> npt.NDArray[np.int64]:
    """Check ids: one-dimensional, integers, within int64; `name` is what errors call them.

    Returns
    -------
    ndarray of int64, shape (n,)
        The input itself where it already was that, so not to be written to.
    """
    try:
        array = np.asarray(ids)
    except (ValueError, OverflowError):  # ragged: as objects, its first element can be named
        array = np.asarray(ids, dtype=object)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, got {short(ids)} of shape {array.shape}: "
            "put a single id in a list, flatten a table with .ravel()"
        )
    if array.size == 0:  # an empty list has no dtype of its own, NumPy calls it float64
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind == "i" or (array.dtype.kind == "u" and int(array.max()) <= INT64_MAX):
        return array.astype(np.int64, copy=False)
    # A mixed list has been cast to a common dtype by now: judge the values as they were given.
    given = array if isinstance(ids, np.ndarray) else np.asarray(ids, dtype=object)
    values = given.tolist()
    for value in values:
        if not is_integer(value):
            raise TypeError(
                f"{name} must be integers, got {short(value)} ({type(value).__name__}): "
                "map them to integers first, whole numbers with .astype(np.int64)"
            )
        if not INT64_MIN <= value <= INT64_MAX:
            raise ValueError(
                f"{name} must fit in int64, got {value}: "
                "renumber them, e.g. with np.unique(ids, return_inverse=True)"
            )
    return np.array(values, dtype=np.int64)


def as_fit_ids(ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Check the ids that a partitioner is fitted from: as `as_ids`, and at least one."""
    array = as_ids(ids)
    if array.size == 0:
        raise ValueError(
            "ids must hold at least one id to fit from, got none: "
            "fit on the ids of the ratings, or use HashPartitioner, which needs no fit"
        )
    return array


def as_counts(counts: npt.ArrayLike, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Check rating counts: one per id, real, finite and not negative, also in total."""
    array = np.asarray(counts)
    if array.shape != ids.shape:
        raise ValueError(
            f"counts must hold one count per id, got {ids.size} ids and counts of shape "
            f"{array.shape}: pass arrays of equal length"
        )
    if array.dtype.kind not in "iuf":
        raise TypeError(
            f"counts must be numbers, got {short(array[0])} (dtype {array.dtype}): "
            "pass the number of ratings of each id"
        )
    array = array.astype(np.float64)

    def refuse(position: int) -> NoReturn:
        raise ValueError(
            f"counts must be finite and not negative, got {array[position]} for id "
            f"{ids[position]}: pass the number of ratings of each id"
        )

    bad = ~(array >= 0)  # NaN too
    if bad.any():
        refuse(int(bad.argmax()))
    with np.errstate(over="ignore"):
        if np.isinf(array.sum()):
            refuse(int(array.argmax()))
    return array


def require_unique(ascending: npt.NDArray[np.int64]) -> None:
    """Check that ascending ids hold none twice."""
    repeats = ascending[1:] == ascending[:-1]
    if repeats.any():
        twice = ascending[int(repeats.argmax())]
        raise ValueError(
            f"ids must be unique, got {twice} {np.count_nonzero(ascending == twice)} times: merge "
            "them, e.g. ids, counts = np.unique(rated_ids, return_counts=True)"
        )
