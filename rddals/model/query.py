"""What recommendations are asked for, checked, and what strangers get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.errors import SettingError, UnknownIdError

__all__ = ["TopNQuery", "checked_id", "popular_then_best", "unknown_id", "uses_fallback"]

#: Some ids, which need not be known.
Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TopNQuery:
    """How many ids, and which.

    Attributes
    ----------
    num : int
    excluded : ndarray of int64
        Ids that are left out; ascending.
    candidates : ndarray of int64, or None
        Ids that are looked at, ascending; None for all.
    """

    num: int
    excluded: Ids
    candidates: Ids | None

    @classmethod
    def checked(cls, num: Any, exclude: Any = (), candidates: Any = None) -> TopNQuery:
        """What a caller passed, or a `SettingError` that says what to pass."""
        return cls(
            _nonnegative_integer("num", num),
            _ids("exclude", exclude),
            None if candidates is None else _ids("candidates", candidates),
        )


def popular_then_best(
    popular: NDArray[np.int32],
    asked: TopNQuery,
    scores_of: Callable[[NDArray[np.int32]], NDArray[np.float64]],
    best: Callable[[TopNQuery], list[tuple[int, float]]],
) -> list[tuple[int, float]]:
    """Popular ids in their order, with scores; and the best of the others, if these are too few.

    Parameters
    ----------
    popular : ndarray of int32
    asked : Asked
    scores_of : callable
        Scores of some ids.
    best : callable
        The ids with the highest scores, and these.
    """
    if asked.candidates is not None:
        popular = popular[np.isin(popular, asked.candidates)]
    popular = popular[np.isin(popular, asked.excluded, invert=True)][: asked.num]
    found: list[tuple[int, float]] = []
    if len(popular):
        found = list(zip(popular.tolist(), scores_of(popular).tolist(), strict=True))
    if len(found) < asked.num:
        excluded = np.union1d(asked.excluded, popular)
        found += best(TopNQuery(asked.num - len(found), excluded, asked.candidates))
    return found


def _nonnegative_integer(name: str, value: Any) -> int:
    """`value`, which must be one."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise SettingError(f"{name} must be a nonnegative integer but got {value!r}.")


def checked_id(name: str, value: Any) -> int:
    """`value` as an id, which need not be known."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise SettingError(f"{name} must be an integer but got {value!r}.") from None


def _ids(name: str, ids: Any) -> Ids:
    """Distinct ids, ascending, of any iterable of integers; none that is beyond 64 bits."""
    try:
        if isinstance(ids, (str, bytes)):
            raise TypeError
        listed = ids if isinstance(ids, np.ndarray) else list(ids)
        found = np.array(listed)
        if found.dtype.kind in "Of":  # NumPy has no type for integers of any size
            found = np.array([id_ for id_ in listed if not _beyond_int64(id_)])
    except (TypeError, ValueError):
        found = np.array([None])
    if found.size == 0 and found.ndim == 1:
        return np.empty(0, np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise SettingError(f"{name} must be a sequence of integer ids but got {ids!r}.")
    if found.dtype.kind == "u":
        found = found[found <= np.iinfo(np.int64).max]  # no id is larger
    return np.unique(found.astype(np.int64))


def _beyond_int64(id_: Any) -> bool:
    return type(id_) is int and not -(2**63) <= id_ < 2**63


def unknown_id(side: str, id_: Any) -> UnknownIdError:
    """The error for an id that the model does not know; it begins with MLlib's words."""
    remedy = ", or foldIn() them" if side == "user" else ""
    return UnknownIdError(
        f"{side}Id: {id_!r} not found in the model: it has no rating in the training data. Train "
        f"with ratings of it{remedy}."
    )


def uses_fallback(fallback: Any) -> bool:
    """Whether popular ids are to be taken where the asked one is not known."""
    if fallback is None or (isinstance(fallback, str) and fallback == "popular"):
        return fallback is not None
    raise SettingError(f"fallback must be 'popular', or None for an error, but got {fallback!r}.")
