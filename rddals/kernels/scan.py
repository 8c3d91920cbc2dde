"""Candidates for the k best items of every query, by NumPy.

The product of all queries and all items is never held: it is scored in float32, one cache-sized
tile at a time, and each tile gives up only the scores that beat the k-th best its query has seen.
The items come by falling norm, so most of a query's best are met in the first tile and little is
left to merge. A tile is reduced first to the peaks of small groups of items; whole groups are then
passed over by one comparison.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rddals.kernels.items import Excluded, ItemIndex

__all__ = ["NOTHING", "key_scores", "scan"]

_GROUP = 32  # Items to a peak, at most: more makes a hit dearer, fewer the search for one.
_SCORES = 1 << 18  # Scores to a tile, at least, as far as there are items: 1 MiB.


def scan(
    queries: NDArray[np.float32],
    norms: NDArray[np.float64],
    errors: NDArray[np.float64],
    items: ItemIndex,
    width: int,
    item_tile: int,
    excluded: Excluded,
) -> NDArray[np.int64]:
    """Return keys of the `width` highest float32 scores of each query, ascending.

    Parameters
    ----------
    queries : (n, r) float32
    norms : (n,) float64
        Their norms.
    errors : (n,) float64
        How far a query's float32 scores may be from the exact ones.
    items : ItemIndex
    width : int
        At most the number of items.
    item_tile : int
    excluded : Excluded
        Pairs that are left out, ascending by place.

    Returns
    -------
    keys : (n, width) int64
        `key_scores` has their scores; the lower 32 bits are places. `NOTHING` where there are fewer
        items that are not excluded.
    """
    if len(queries) == 1 and items.columns is not None:
        return _scan_columns(
            queries[0], norms[0], errors[0], items, width, item_tile, excluded.places
        )
    best = np.full((len(queries), width), NOTHING)
    thresholds = np.full(len(queries), -np.inf, np.float32)
    live = np.arange(len(queries))  # Queries that an item not yet scanned may still improve.
    group = max(1, min(_GROUP, item_tile // (4 * width)))  # So that peaks can seed thresholds.
    buffer = np.empty(max((item_tile + _GROUP) * live.size, _SCORES), np.float32)
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
    best = np.full(width, NOTHING)
    threshold = key_scores(best[:1])
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
        threshold, start = key_scores(best[:1]), stop
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
    pool = np.full((len(best), most + best.shape[1]), NOTHING)
    pool[:, most:] = best
    pool[owners, np.arange(len(keys)) - (np.cumsum(counts) - counts)[owners]] = keys
    pool.sort(axis=1)
    best[:] = pool[:, most:]
    thresholds[:] = key_scores(best[:, 0])


# A key is a float32 score over an item's place in the index, as one int64 that sorts by score:
# candidates then move as single numbers, and a merge is a plain sort.


def _pack(scores: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.int64]:
    return _flip(scores.view(np.int32)).astype(np.int64) << 32 | places


def key_scores(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    return _flip((keys >> 32).astype(np.int32)).view(np.float32)


def _flip(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Reverse negative floats' bits, so that all sort as integers; its own inverse."""
    flipped: NDArray[np.int32] = bits ^ (bits >> 31 & 0x7FFFFFFF)
    return flipped


NOTHING = _pack(np.array([-np.inf], np.float32), np.array([0]))[0]
