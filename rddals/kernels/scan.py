"""Candidates of top-N queries, in NumPy.

Scores are computed in float32, one cache-sized tile at a time, so the product of all queries and
items is never in memory. Only scores above the current k-th best of a query are merged. Items are
scanned by descending norm, so the first tile contains most of the top k and later merges are small.
Each tile is first reduced to the maxima (peaks) of small groups of items, so that one comparison
skips a whole group.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rddals.kernels.items import Excluded, ItemIndex

_GROUP = 32  # Maximum items per peak. More makes a hit more expensive, fewer the search for hits.
_SCORES = 1 << 18  # Minimum scores per tile, if there are enough items: 1 MiB.


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

    `width` is at most the number of items, `errors` are bounds on the errors of each query's
    scores, `item_tile` is the minimum number of items scored at a time, and `excluded` is sorted by
    place.

    Returns
    -------
    keys : (n, width) int64
        Keys of the candidates: `key_scores` returns their scores, the lower 32 bits are places.
        Padded with `NOTHING` if fewer items are not excluded.
    """
    if len(queries) == 1 and items.columns is not None:
        return _scan_columns(
            queries[0], norms[0], errors[0], items, width, item_tile, excluded.places
        )
    best = np.full((len(queries), width), NOTHING)
    thresholds = np.full(len(queries), -np.inf, np.float32)
    live = np.arange(len(queries))  # Queries that the remaining items may still improve.
    group = max(1, min(_GROUP, item_tile // (4 * width)))  # So that peaks can seed thresholds.
    buffer = np.empty(max((item_tile + _GROUP) * live.size, _SCORES), np.float32)
    start = 0
    while start < len(items.ids):
        in_reach = norms[live] * items.norms[start] + errors[live] > thresholds[live]
        if not in_reach.all():
            live, queries = live[in_reach], queries[in_reach]
            if live.size == 0:
                break
        # Few queries take longer tiles, each as long as all items before it.
        tile = max(item_tile, min(start, len(buffer) // live.size - _GROUP))
        # Rounding may lower the reach, so scan at least one more item.
        reach = _reach(items, norms, errors, thresholds, live)
        rows = items.rows[start : min(start + tile, max(reach, start + 1))]
        groups = -(-len(rows) // group)
        # Queries are the last axis, so that peaks are maxima of long contiguous vectors.
        scores = buffer[: groups * group * live.size].reshape(groups * group, live.size)
        np.matmul(rows, queries.T, out=scores[: len(rows)])
        scores[len(rows) :] = -np.inf
        if len(excluded.places):
            out = excluded.of_places(start, start + len(rows))
            column = np.minimum(np.searchsorted(live, out.queries), live.size - 1)
            is_live = live[column] == out.queries
            scores[out.places[is_live], column[is_live]] = -np.inf
        grouped = scores.reshape(groups, group, live.size)
        peaks = grouped.max(axis=1)  # (groups, group, b) -> (groups, b)
        if start == 0 and groups >= width:
            # At least `width` scores reach the `width`-th highest peak.
            seeds = np.partition(peaks.T, groups - width, axis=1)[:, groups - width]
            thresholds = np.nextafter(seeds, np.float32(-np.inf))
        bars = thresholds[live]
        column, block = np.divmod(np.flatnonzero((peaks > bars).T), groups)
        hits = grouped[block, :, column]  # (hit groups, group)
        hit, member = np.divmod(np.flatnonzero(hits > bars[column, None]), group)
        if hit.size:
            keys = _pack(hits[hit, member], start + block[hit] * group + member)
            merge(best, thresholds, live[column[hit]], keys)
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
    """Scan for one query, using the columns of the items; `excluded` is ascending."""
    assert items.columns is not None
    best = np.full(width, NOTHING)
    threshold = key_scores(best[:1])
    start, reach = 0, len(items.ids)
    while start < reach:
        # The first tile gives a threshold. The overhead of a step equals the scoring of some 10,000
        # items, so each step is much longer than all before it.
        stop = min(max(item_tile, 16 * start), reach)
        scores = query @ items.columns[:, start:stop]
        if excluded.size:
            low, high = np.searchsorted(excluded, [start, stop])
            scores[excluded[low:high] - start] = -np.inf
        hits = np.flatnonzero(scores > threshold)
        keys = np.concatenate([best, _pack(scores[hits], start + hits)])
        keys.partition(hits.size)
        best = keys[hits.size :]  # the lowest key is first
        threshold, start = key_scores(best[:1]), stop
        if norm > 0 and start < reach:
            reach = min(reach, _count_with_norm(items, (float(threshold[0]) - error) / norm))
    best.sort()
    return best[None, :]


def _reach(
    items: ItemIndex,
    norms: NDArray[np.float64],
    errors: NDArray[np.float64],
    thresholds: NDArray[np.float32],
    live: NDArray[np.intp],
) -> int:
    """Return the number of items with a norm large enough to improve a live query."""
    with np.errstate(divide="ignore", invalid="ignore"):  # the norm of a query may be 0
        smallest = ((thresholds[live] - errors[live]) / norms[live]).min()
    return _count_with_norm(items, smallest)


def _count_with_norm(items: ItemIndex, smallest: float) -> int:
    """Return the number of items with at least the norm `smallest`; all if it is not finite."""
    if not np.isfinite(smallest):
        return len(items.ids)
    return len(items.ids) - int(np.searchsorted(items.norms[::-1], smallest, side="left"))


def merge(
    best: NDArray[np.int64],
    thresholds: NDArray[np.float32],
    owners: NDArray[np.intp],
    keys: NDArray[np.int64],
) -> None:
    """Merge candidate `keys` into `best`, in place; `owners` are their queries, ascending.

    All rows of `best` are sorted, because skipping unchanged rows costs as much as it saves.
    """
    counts = np.bincount(owners, minlength=len(best))
    most = counts.max()
    pool = np.full((len(best), most + best.shape[1]), NOTHING)
    pool[:, most:] = best
    pool[owners, np.arange(len(keys)) - (np.cumsum(counts) - counts)[owners]] = keys
    pool.sort(axis=1)
    best[:] = pool[:, most:]
    thresholds[:] = key_scores(best[:, 0])


# A key is one int64 that sorts by score: the float32 score in the upper 32 bits, the item's place
# in the index in the lower 32. A candidate is then a single number, and a merge is a plain sort.


def _pack(scores: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.int64]:
    """Pack scores and places into keys."""
    return _flip(scores.view(np.int32)).astype(np.int64) << 32 | places


def key_scores(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the scores of keys."""
    return _flip((keys >> 32).astype(np.int32)).view(np.float32)


def _flip(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Flip the bits of negative floats, so that floats sort as integers; its own inverse."""
    flipped: NDArray[np.int32] = bits ^ (bits >> 31 & 0x7FFFFFFF)
    return flipped


NOTHING = _pack(np.array([-np.inf], np.float32), np.array([0]))[0]
