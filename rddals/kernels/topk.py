"""The k best items of every query: blocked top-N of a matrix product.

The product of all queries and all items is never held: it is scored in float32, one cache-sized
tile at a time, and each tile gives up only the scores that beat the k-th best its query has seen.
The items come by falling norm, so most of a query's best are met in the first tile and little is
left to merge. A tile is reduced first to the peaks of small groups of items; whole groups are then
passed over by one comparison.

What comes out does not depend on the tiles. Float32 scores only choose whom to score again in
float64, and a rounding bound tells when they could have chosen wrongly; those queries, in practice
the ones with a tie at the k-th place, are settled against every item in reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.errors import OverflowingRatingsError

__all__ = ["Excluded", "ItemIndex", "pair_scores", "top_k"]

_F32 = np.finfo(np.float32)
_SPARE = 2  # Items kept beyond k. A near-tie at the k-th place seldom spans three, so few settle.
_GROUP = 32  # Items to a peak, at most: more makes a hit dearer, fewer the search for one.
_SCORES = 1 << 18  # Scores to a tile, at least, as far as there are items: 1 MiB.
_RESCORE = 1 << 18  # Gathered float32 values per rescoring step: 1 MiB.


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """Items in the order `top_k` scans them; made once by `build`, then reused and shipped.

    Attributes
    ----------
    ids : (m,) int32
    rows : (m, r) float32
        C-contiguous, by falling norm; equal norms by ascending id.
    norms : (m,) float64
        Euclidean norms of `rows`, falling.
    by_id : (m,) intp
        Places of the items by ascending id.
    columns : (r, m) float32, optional
        `rows`, transposed in memory: a single query scores contiguous columns some three times as
        fast as short rows. It is worth its memory where queries come one at a time.
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
        """Order items for scanning.

        Parameters
        ----------
        ids : (m,) int32
            Distinct; negative ones are fine.
        rows : (m, r) float32
            ``rows[i]`` is the factor of ``ids[i]``.
        columns : bool
            Whether to hold the rows as columns too.

        Raises
        ------
        ValueError
            For another shape or dtype, or if a row holds NaN or infinity: no order exists then.
        """
        _check_array("rows", rows, np.float32, 2)
        _check_array("ids", ids, np.int32, 1)
        if len(ids) != len(rows):
            raise ValueError(f"ids and rows must pair up, got {len(ids)} ids and {len(rows)} rows")
        norms = _norms("item rows", rows)
        order = np.lexsort((ids, -norms))
        ids, rows = ids[order], rows[order]
        transposed = np.ascontiguousarray(rows.T) if columns else None
        return cls(ids, rows, norms[order], np.argsort(ids), transposed)


@dataclass(frozen=True, slots=True)
class Excluded:
    """Pairs of a query and an item that are not to be found.

    Attributes
    ----------
    queries, places : (e,) intp
        Rows of the queries, and places of the items in their index; ascending by either, the
        other's order then being any.
    """

    queries: NDArray[np.intp]
    places: NDArray[np.intp]

    @classmethod
    def nothing(cls) -> Excluded:
        """No pairs."""
        none = np.empty(0, np.intp)
        return cls(none, none)

    @classmethod
    def of(cls, queries: NDArray[np.intp], ids: NDArray[Any], items: ItemIndex) -> Excluded:
        """Pairs by the ids of items; those of no item are left out."""
        if not len(items.ids):
            return cls.nothing()
        found = np.searchsorted(items.ids, ids, sorter=items.by_id)
        places = items.by_id[np.minimum(found, len(items.ids) - 1)]
        known = items.ids[places] == ids
        queries, places = queries[known], places[known]
        by_query = np.argsort(queries, kind="stable")
        return cls(queries[by_query], places[by_query])

    def of_queries(self, start: int, stop: int) -> Excluded:
        """The pairs of some queries, counted from `start`; ascending by place."""
        low, high = np.searchsorted(self.queries, [start, stop])
        by_place = low + np.argsort(self.places[low:high], kind="stable")
        return Excluded(self.queries[by_place] - start, self.places[by_place])

    def of_places(self, start: int, stop: int) -> Excluded:
        """The pairs of some places, counted from `start`; for pairs that ascend by place."""
        low, high = np.searchsorted(self.places, [start, stop])
        return Excluded(self.queries[low:high], self.places[low:high] - start)


def pair_scores(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Dot products of float32 factors in float64, over the last axis; the others broadcast.

    The score of a pair is the same to the last bit however the pairs are batched, which BLAS does
    not promise. Predictions made with it agree with the scores of `top_k`.
    """
    # Cast to plain C order first: the order of summation follows strides, and einsum's own casting
    # goes through a buffer, in pieces that need not align with rows.
    scores: NDArray[np.float64] = np.einsum(
        "...r,...r->...", left.astype(np.float64, order="C"), right.astype(np.float64, order="C")
    )
    return scores


def top_k(
    queries: NDArray[np.float32],
    items: ItemIndex,
    k: int,
    *,
    excluded: Excluded | None = None,
    query_tile: int = 512,
    item_tile: int = 2048,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the `k` items that score highest with each query.

    Parameters
    ----------
    queries : (n, r) float32
    items : ItemIndex
        Of m items at the same rank r.
    k : int
        How many; more than m means all of them.
    excluded : Excluded, optional
        Pairs that are left out. Where fewer than `k` items remain for a query, the rest of its
        scores is -inf, and the ids that go with them mean nothing.
    query_tile, item_tile : int
        Shape of the score tile. It affects speed and memory (4 bytes times the product), not the
        result.

    Returns
    -------
    ids : (n, min(k, m)) int32
    scores : (n, min(k, m)) float64
        `pair_scores` of each query and its items, descending; equal scores by ascending id.
        In float64 because a prediction is: a float32 score would print other digits.

    Raises
    ------
    ValueError
        For a negative `k`, a tile below 1, another shape or dtype, or a query that holds NaN or
        infinity.
    OverflowingRatingsError
        For rows so long (norms multiplying to some 1e38) that float32 scores overflow.

    Notes
    -----
    A float32 dot product is within about r eps / 2 |q| |y| of the exact one [1]_. Two bounds follow
    for each query: items too short to reach its threshold (Cauchy-Schwarz) end its scan, and
    a k-th best float32 score that leads the best dropped one by more than two errors proves that
    none of the true top k was dropped.

    References
    ----------
    .. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.1.
    """
    _check_array("queries", queries, np.float32, 2)
    (n, rank), m = queries.shape, len(items.ids)
    if rank != items.rows.shape[1]:
        raise ValueError(f"queries have rank {rank} but items have rank {items.rows.shape[1]}")
    if k < 0:
        raise ValueError(f"k must be nonnegative but got {k}")
    if min(query_tile, item_tile) < 1:
        raise ValueError(f"tiles must be at least 1 but got {query_tile} x {item_tile}")
    k = min(k, m)
    ids, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float64)
    norms = _norms("queries", queries)
    if k == 0 or n == 0:
        return ids, scores
    longest = norms.max() * items.norms[0]
    if longest > _F32.max / 2:
        raise OverflowingRatingsError(
            f"Predictions would overflow float32: the longest factors, {norms.max():g} and "
            f"{items.norms[0]:g}, have a product beyond it. Scale the ratings down."
        )
    width = min(k + _SPARE, m)
    # The second term is for products that underflow.
    errors = (rank + 2) * (_F32.eps / 2 * norms * items.norms[0] + _F32.tiny)
    excluded = excluded or Excluded.nothing()
    buffer = np.empty(max((item_tile + _GROUP) * min(n, query_tile), _SCORES), np.float32)
    for start in range(0, n, query_tile):
        tile = slice(start, start + query_tile)
        out = excluded.of_queries(start, start + query_tile)
        if n == 1 and items.columns is not None:
            keys = _scan_columns(
                queries[0], norms[0], errors[0], items, width, item_tile, out.places
            )
        else:
            keys = _scan(
                queries[tile], norms[tile], errors[tile], items, width, item_tile, buffer, out
            )
        ids[tile], scores[tile] = _rescore(queries[tile], keys, items, k)
        if width < m:  # Something was dropped: from which queries could it have been one too many?
            floors = _key_scores(keys[:, -k]).astype(np.float64) - 2 * errors[tile]
            doubtful = (_key_scores(keys[:, 0]) >= floors) & (keys[:, 0] != _NOTHING)
            for row in np.flatnonzero(doubtful).tolist():
                query, own = queries[start + row], out.places[out.queries == row]
                settled = _settle(query, floors[row], items, k, own)
                ids[start + row], scores[start + row] = settled
    return ids, scores


def _scan(
    queries: NDArray[np.float32],
    norms: NDArray[np.float64],
    errors: NDArray[np.float64],
    items: ItemIndex,
    width: int,
    item_tile: int,
    buffer: NDArray[np.float32],
    excluded: Excluded,
) -> NDArray[np.int64]:
    """Return keys of the `width` highest float32 scores of each query, ascending."""
    best = np.full((len(queries), width), _NOTHING)
    thresholds = np.full(len(queries), -np.inf, np.float32)
    live = np.arange(len(queries))  # Queries that an item not yet scanned may still improve.
    group = max(1, min(_GROUP, item_tile // (4 * width)))  # So that peaks can seed thresholds.
    start = 0
    while start < len(items.ids):
        in_reach = norms[live] * items.norms[start] + errors[live] > thresholds[live]
        if not in_reach.all():
            live, queries = live[in_reach], queries[in_reach]
            if live.size == 0:
                break
        # Few queries take longer tiles, by doubling: of twice the items seen, k beat the best k.
        tile = max(item_tile, min(start, len(buffer) // live.size - _GROUP))
        # At least one item more, whatever rounding makes of the reach.
        reach = _reach(items, norms, errors, thresholds, live)
        rows = items.rows[start : min(start + tile, max(reach, start + 1))]
        groups = -(-len(rows) // group)
        # Queries last, so that peaks are maxima of long contiguous vectors.
        scores = buffer[: groups * group * live.size].reshape(groups * group, live.size)
        np.matmul(rows, queries.T, out=scores[: len(rows)])
        scores[len(rows) :] = -np.inf
        if len(excluded.places):
            out = excluded.of_places(start, start + len(rows))
            column = np.minimum(np.searchsorted(live, out.queries), live.size - 1)
            here = live[column] == out.queries
            scores[out.places[here], column[here]] = -np.inf
        grouped = scores.reshape(groups, group, live.size)
        peaks = grouped.max(axis=1)  # (groups, group, b) -> (groups, b)
        if start == 0 and groups >= width:
            # As many scores as there are peaks reach the lowest of them.
            seeds = np.partition(peaks.T, groups - width, axis=1)[:, groups - width]
            thresholds = np.nextafter(seeds, np.float32(-np.inf))
        bars = thresholds[live]
        column, block = np.divmod(np.flatnonzero((peaks > bars).T), groups)
        hits = grouped[block, :, column]  # (hit groups, group)
        hit, member = np.divmod(np.flatnonzero(hits > bars[column, None]), group)
        if hit.size:
            keys = _pack(hits[hit, member], start + block[hit] * group + member)
            _merge(best, thresholds, live[column[hit]], keys)
        start += len(rows)
    return best


def _scan_columns(
    query: NDArray[np.float32],
    norm: float,
    error: float,
    items: ItemIndex,
    width: int,
    item_tile: int,
    excluded: NDArray[np.intp],
) -> NDArray[np.int64]:
    """Do what `_scan` does for one query, with the columns of the items; `excluded` ascends."""
    assert items.columns is not None
    best = np.full(width, _NOTHING)
    threshold = _key_scores(best[:1])
    start, reach = 0, len(items.ids)
    while start < reach:
        # The first tile finds a threshold. Each step costs as much as the scores of some 10,000
        # items, so there are few, each much longer than all before it.
        stop = min(max(item_tile, 16 * start), reach)
        scores = query @ items.columns[:, start:stop]
        if excluded.size:
            low, high = np.searchsorted(excluded, [start, stop])
            scores[excluded[low:high] - start] = -np.inf
        hits = np.flatnonzero(scores > threshold)
        keys = np.concatenate([best, _pack(scores[hits], start + hits)])
        keys.partition(hits.size)
        best = keys[hits.size :]  # the lowest of them first
        threshold, start = _key_scores(best[:1]), stop
        if norm > 0 and start < reach:
            reach = min(reach, _long_enough(items, (float(threshold[0]) - error) / norm))
    best.sort()
    return best[None, :]


def _reach(
    items: ItemIndex,
    norms: NDArray[np.float64],
    errors: NDArray[np.float64],
    thresholds: NDArray[np.float32],
    live: NDArray[np.intp],
) -> int:
    """Return how many items are long enough to improve any of the live queries."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a query of zeros reaches all or nothing
        shortest = ((thresholds[live] - errors[live]) / norms[live]).min()
    return _long_enough(items, shortest)


def _long_enough(items: ItemIndex, shortest: float) -> int:
    """Return how many items have at least the norm `shortest`; all if it is no finite number."""
    if not np.isfinite(shortest):
        return len(items.ids)
    return len(items.ids) - int(np.searchsorted(items.norms[::-1], shortest, side="left"))


def _merge(
    best: NDArray[np.int64],
    thresholds: NDArray[np.float32],
    owners: NDArray[np.intp],
    keys: NDArray[np.int64],
) -> None:
    """Merge candidate `keys` into `best`, in place; `owners`, ascending, says whose each is.

    All of `best` is sorted, touched or not: leaving rows out costs as much as it saves.
    """
    counts = np.bincount(owners, minlength=len(best))
    most = counts.max()
    pool = np.full((len(best), most + best.shape[1]), _NOTHING)
    pool[:, most:] = best
    pool[owners, np.arange(len(keys)) - (np.cumsum(counts) - counts)[owners]] = keys
    pool.sort(axis=1)
    best[:] = pool[:, most:]
    thresholds[:] = _key_scores(best[:, 0])


def _rescore(
    queries: NDArray[np.float32], keys: NDArray[np.int64], items: ItemIndex, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the `k` best of the items in `keys` and their float64 scores, in final order."""
    places = keys & 0xFFFFFFFF
    scores = np.empty(keys.shape, np.float64)
    step = max(1, _RESCORE // (keys.shape[1] * max(1, queries.shape[1])))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        scores[part] = pair_scores(queries[part, None], items.rows[places[part]])
    scores[keys == _NOTHING] = -np.inf
    ids = items.ids[places]
    order = np.lexsort((ids, -scores))[:, :k]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)


def _settle(
    query: NDArray[np.float32],
    floor: float,
    items: ItemIndex,
    k: int,
    excluded: NDArray[np.intp],
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Do one query again, with every item whose float32 score is at least `floor`."""
    reached = items.rows @ query
    reached[excluded] = -np.inf
    near = np.flatnonzero(reached >= floor)
    ids, scores = items.ids[near], pair_scores(query, items.rows[near])
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


# A key is a float32 score over an item's place in the index, as one int64 that sorts by score:
# candidates then move as single numbers, and a merge is a plain sort.


def _pack(scores: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.int64]:
    return _flip(scores.view(np.int32)).astype(np.int64) << 32 | places


def _key_scores(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    return _flip((keys >> 32).astype(np.int32)).view(np.float32)


def _flip(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Reverse negative floats' bits, so that all sort as integers; its own inverse."""
    flipped: NDArray[np.int32] = bits ^ (bits >> 31 & 0x7FFFFFFF)
    return flipped


_NOTHING = _pack(np.array([-np.inf], np.float32), np.array([0]))[0]


def _check_array(name: str, array: NDArray[Any], dtype: type[np.generic], ndim: int) -> None:
    if array.dtype != dtype or array.ndim != ndim:
        raise ValueError(
            f"{name} must be a {ndim}-dimensional {dtype.__name__} array, "
            f"got {array.dtype} of shape {array.shape}"
        )


def _norms(name: str, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(norms))
    if bad.size:
        raise ValueError(
            f"{name} must be finite, but {bad.size} of {len(rows)} are not; "
            f"the first is row {bad[0]}: {rows[bad[0]]}"
        )
    return norms
