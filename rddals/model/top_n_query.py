"""Validated top-N queries, and recommendations for unknown ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.ratings import whole_number
from rddals.errors import SettingError, UnknownIdError

#: Ids from the caller, which the model need not know.
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TopNQuery:
    """Arguments of a top-N query.

    Attributes
    ----------
    num : int
        Number of ids to return.
    excluded : ndarray of int64
        Ids to leave out, in ascending order.
    candidates : ndarray of int64, or None
        Ids to score, in ascending order; None for all.
    """

    num: int
    excluded: Ids
    candidates: Ids | None

    @classmethod
    def checked(cls, num: Any, exclude: Any = (), candidates: Any = None) -> TopNQuery:
        """Validate arguments and return the query; raise `SettingError` otherwise."""
        return cls(
            _nonnegative_integer("num", num),
            _ids("exclude", exclude),
            None if candidates is None else _ids("candidates", candidates),
        )


def popular_then_best(
    popular: NDArray[np.int32],
    query: TopNQuery,
    scores_of: Callable[[NDArray[np.int32]], NDArray[np.float64]],
    best: Callable[[TopNQuery], list[tuple[int, float]]],
) -> list[tuple[int, float]]:
    """Return popular ids, in their order, with their scores, then the best of the other ids.

    The result has at most ``query.num`` ids. `best` returns the ids with the highest scores, and
    these scores, for the rest of the query.
    """
    if query.candidates is not None:
        popular = popular[np.isin(popular, query.candidates)]
    popular = popular[np.isin(popular, query.excluded, invert=True)][: query.num]
    pairs: list[tuple[int, float]] = []
    if len(popular):
        pairs = list(zip(popular.tolist(), scores_of(popular).tolist(), strict=True))
    if len(pairs) < query.num:
        excluded = np.union1d(query.excluded, popular)
        pairs += best(TopNQuery(query.num - len(pairs), excluded, query.candidates))
    return pairs


def _nonnegative_integer(name: str, value: Any) -> int:
    """Return `value` as an int, or raise `SettingError` if it is negative or not an integer."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise SettingError(f"{name} must be a nonnegative integer but got {value!r}.")


def checked_id(name: str, value: Any) -> int:
    """Return `value` as an integer id, which the model may not know."""
    try:
        return whole_number(value)
    except (TypeError, ValueError, OverflowError):
        raise SettingError(f"{name} must be an integer but got {value!r}.") from None


def _ids(name: str, ids: Any) -> Ids:
    """Return the distinct ids of an iterable in ascending order, without those beyond int64."""
    try:
        if isinstance(ids, (str, bytes)):
            raise TypeError
        values = ids if isinstance(ids, np.ndarray) else list(ids)
        array = np.array(values)
        if array.dtype.kind in "Of":  # NumPy has no type for integers of any size
            array = np.array([id_ for id_ in values if not _beyond_int64(id_)])
    except (TypeError, ValueError):
        array = np.array([None])
    if array.size == 0 and array.ndim == 1:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SettingError(f"{name} must be a sequence of integer ids but got {ids!r}.")
    if array.dtype.kind == "u":
        array = array[array <= np.iinfo(np.int64).max]  # larger integers are not ids
    return np.unique(array.astype(np.int64))


def _beyond_int64(id_: Any) -> bool:
    return type(id_) is int and not -(2**63) <= id_ < 2**63


def unknown_id(side: str, id_: Any) -> UnknownIdError:
    """Build the error for an unknown id. The message begins with MLlib's words."""
    remedy = ", or foldIn() them" if side == "user" else ""
    return UnknownIdError(
        f"{side}Id: {id_!r} not found in the model: it has no rating in the training data. Train "
        f"with ratings of it{remedy}."
    )


def uses_fallback(fallback: Any) -> bool:
    """Validate `fallback` and return whether unknown ids get popular ids."""
    if fallback is None or (isinstance(fallback, str) and fallback == "popular"):
        return fallback is not None
    raise SettingError(f"fallback must be 'popular', or None for an error, but got {fallback!r}.")
