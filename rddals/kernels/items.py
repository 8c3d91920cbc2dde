"""Items of top-N queries, in scanning order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """Items in scanning order, built once with `build`, then reused and shipped.

    Attributes
    ----------
    ids : (m,) int32
    rows : (m, r) float32
        Factors, C-contiguous, by descending norm; equal norms by ascending id.
    norms : (m,) float64
        Euclidean norms of `rows`, descending.
    by_id : (m,) intp
        Positions of the items in ascending order of id.
    columns : (r, m) float32, optional
        `rows` transposed in memory. A single query scores contiguous columns about three times as
        fast as short rows, so it pays if queries arrive one at a time.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.float32]
    norms: NDArray[np.float64]
    by_id: NDArray[np.intp]
    columns: NDArray[np.float32] | None = None

    @classmethod
    def build(
        cls, ids: NDArray[np.int32], rows: NDArray[np.float32], *, columns: bool = False
    ) -> ItemIndex:
        """Order items for scanning; `columns` says whether to store a transposed copy too.

        ``rows[i]`` is the float32 factor of ``ids[i]``; the int32 ids are distinct and may be
        negative. A wrong shape or dtype, NaN or infinity raises `ValueError`.
        """
        check_array("rows", rows, np.float32, 2)
        check_array("ids", ids, np.int32, 1)
        if len(ids) != len(rows):
            raise ValueError(f"ids and rows must pair up, got {len(ids)} ids and {len(rows)} rows")
        norms = norms_of("item rows", rows)
        order = np.lexsort((ids, -norms))
        ids, rows = ids[order], rows[order]
        transposed = np.ascontiguousarray(rows.T) if columns else None
        return cls(ids, rows, norms[order], np.argsort(ids), transposed)


@dataclass(frozen=True, slots=True)
class Excluded:
    """Pairs of a query and an item to leave out of the results.

    Attributes
    ----------
    queries, places : (e,) intp
        Rows of the queries and positions of the items in their index. Pairs are sorted by one of
        the two.
    """

    queries: NDArray[np.intp]
    places: NDArray[np.intp]

    @classmethod
    def nothing(cls) -> Excluded:
        """Return an object without pairs."""
        empty = np.empty(0, np.intp)
        return cls(empty, empty)

    @classmethod
    def of(cls, queries: NDArray[np.intp], ids: NDArray[Any], items: ItemIndex) -> Excluded:
        """Build pairs from item ids, sorted by query; unknown ids are ignored."""
        if not len(items.ids):
            return cls.nothing()
        positions = np.searchsorted(items.ids, ids, sorter=items.by_id)
        places = items.by_id[np.minimum(positions, len(items.ids) - 1)]
        known = items.ids[places] == ids
        queries, places = queries[known], places[known]
        by_query = np.argsort(queries, kind="stable")
        return cls(queries[by_query], places[by_query])

    def of_queries(self, start: int, stop: int) -> Excluded:
        """Return the pairs of queries `start` to `stop`, relative to `start`, sorted by place."""
        low, high = np.searchsorted(self.queries, [start, stop])
        by_place = low + np.argsort(self.places[low:high], kind="stable")
        return Excluded(self.queries[by_place] - start, self.places[by_place])

    def of_places(self, start: int, stop: int) -> Excluded:
        """Return the pairs of places `start` to `stop`, relative to `start`.

        The pairs must be sorted by place.
        """
        low, high = np.searchsorted(self.places, [start, stop])
        return Excluded(self.queries[low:high], self.places[low:high] - start)


def check_array(name: str, array: NDArray[Any], dtype: type[np.generic], ndim: int) -> None:
    """Raise a ValueError if an array has the wrong dtype or number of dimensions."""
    if array.dtype != dtype or array.ndim != ndim:
        raise ValueError(
            f"{name} must be a {ndim}-dimensional {dtype.__name__} array "
            f"but got {array.dtype} of shape {array.shape}"
        )


def norms_of(name: str, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norms of rows; raise a ValueError if any is not finite."""
    norms: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(norms))
    if bad.size:
        raise ValueError(
            f"{name} must be finite but {bad.size} of {len(rows)} are not; "
            f"the first is row {bad[0]}: {rows[bad[0]]}"
        )
    return norms
