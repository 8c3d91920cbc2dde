"""Validation of arguments and their conversion to arrays."""

from __future__ import annotations

import operator
from reprlib import repr as short
from typing import NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

INT32_MAX = 2**31 - 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def is_integer(value: object) -> bool:
    """Return whether `value` is a Python or NumPy integer, and not a bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def as_num_blocks(num_blocks: SupportsIndex) -> int:
    """Check a number of blocks: an integer from 1 to 2**31 - 1, so that block numbers fit int32."""
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
    """Check that ids are one-dimensional integers within int64; errors refer to them as `name`.

    The result is the input itself if that is an int64 array, so it must not be modified.
    """
    try:
        array = np.asarray(ids)
    except (ValueError, OverflowError):  # ragged: an object array lets the error show an element
        array = np.asarray(ids, dtype=object)
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, got {short(ids)} of shape {array.shape}: "
            "put a single id in a list, flatten a table with .ravel()"
        )
    if array.size == 0:  # NumPy makes an empty list float64
        return np.empty(0, dtype=np.int64)
    if array.dtype.kind == "i" or (array.dtype.kind == "u" and int(array.max()) <= INT64_MAX):
        return array.astype(np.int64, copy=False)
    # NumPy has cast a mixed list to a common dtype, so check the original values.
    original = array if isinstance(ids, np.ndarray) else np.asarray(ids, dtype=object)
    values = original.tolist()
    for value in values:
        if not is_integer(value):
            raise TypeError(
                f"{name} must be integers, got {short(value)} ({type(value).__name__}): "
                "map them to integers first, or convert whole numbers with .astype(np.int64)"
            )
        if not INT64_MIN <= value <= INT64_MAX:
            raise ValueError(
                f"{name} must fit in int64, got {value}: "
                "renumber them, e.g. with np.unique(ids, return_inverse=True)"
            )
    return np.array(values, dtype=np.int64)


def as_fit_ids(ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Check the ids to fit a partitioner to: as `as_ids`, with at least one id."""
    array = as_ids(ids)
    if array.size == 0:
        raise ValueError(
            "ids must hold at least one id to fit from, got none: "
            "fit on the ids of the ratings, or use HashPartitioner, which needs no fit"
        )
    return array


def as_counts(counts: npt.ArrayLike, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Check rating counts: one per id, real and not negative, with a finite sum."""
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

    def reject(position: int) -> NoReturn:
        raise ValueError(
            f"counts must be finite and not negative, got {array[position]} for id "
            f"{ids[position]}: pass the number of ratings of each id"
        )

    invalid = ~(array >= 0)  # true for NaN
    if invalid.any():
        reject(int(invalid.argmax()))
    with np.errstate(over="ignore"):
        if np.isinf(array.sum()):
            reject(int(array.argmax()))
    return array


def require_unique(ascending: npt.NDArray[np.int64]) -> None:
    """Check that ids in ascending order are distinct."""
    repeats = ascending[1:] == ascending[:-1]
    if repeats.any():
        repeated = ascending[int(repeats.argmax())]
        raise ValueError(
            f"ids must be unique, got {repeated} {np.count_nonzero(ascending == repeated)} times: "
            "merge them, e.g. ids, counts = np.unique(rated_ids, return_counts=True)"
        )
