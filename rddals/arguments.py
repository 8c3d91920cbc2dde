"""Arguments of recommendations, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.errors import SettingError

__all__ = ["Ids", "checked_id", "fallback_asked", "id_array", "nonnegative_integer"]

#: Some ids, which need not be known.
Ids = NDArray[np.int64]


def nonnegative_integer(name: str, value: Any) -> int:
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


def id_array(name: str, ids: Any) -> Ids:
    """Distinct ids, ascending, of any iterable of integers."""
    try:
        found = np.array(ids if isinstance(ids, np.ndarray) else list(ids))
    except (TypeError, ValueError):
        found = np.array([None])
    if found.size == 0 and found.ndim == 1:
        return np.empty(0, np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise SettingError(f"{name} must be a sequence of integer ids but got {ids!r}.")
    return np.unique(found.astype(np.int64))


def fallback_asked(fallback: Any) -> bool:
    """Whether popular ids are to be taken where the asked one is not known."""
    if fallback is None or (isinstance(fallback, str) and fallback == "popular"):
        return fallback is not None
    raise SettingError(f"fallback must be 'popular', or None for an error, but got {fallback!r}.")
