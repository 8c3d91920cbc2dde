"""Top-N queries: the k items with the highest score for each query.

Float32 scores select candidates, which are scored again in float64. A rounding bound detects the
queries whose candidates may be wrong, in practice those with a tie at the k-th place. These are
scored again against every item within the bound. The result therefore depends neither on the
implementation of the scan (`kernels.scan` or the compiled library) nor on the tile sizes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rddals.errors import OverflowingRatingsError
from rddals.kernels import native
from rddals.kernels.items import Excluded, ItemIndex, check_array, norms_of
from rddals.kernels.native.scan import native_scan
from rddals.kernels.scan import NOTHING, key_scores, scan

_F32 = np.finfo(np.float32)
_SPARE = 2  # Candidates beyond k. A near-tie at the k-th place rarely spans three items.
RESCORE = 1 << 18  # Gathered float32 values per rescoring step: 1 MiB.


def pair_scores(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return dot products of float32 factors in float64, over the last axis; other axes broadcast.

    Unlike with BLAS, the score of a pair is the same to the last bit however pairs are batched.
    Predictions computed with this function equal the scores of `top_k`.
    """
    # Cast to C order first: the order of summation follows the strides, and einsum's own cast uses
    # a buffer whose pieces may not align with rows.
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
    """Return the `k` items with the highest score for each query.

    Parameters
    ----------
    queries : (n, r) float32
    items : ItemIndex
        Index of m items of the same rank r.
    k : int
        Number of items per query; values above m mean m.
    excluded : Excluded, optional
        Pairs to leave out. If fewer than `k` items remain for a query, its other scores are -inf
        and their ids are undefined.
    query_tile, item_tile : int
        Number of queries and items scored at a time. They affect speed and memory (NumPy holds
        4 bytes times their product), not the result.

    Returns
    -------
    ids : (n, min(k, m)) int32
    scores : (n, min(k, m)) float64
        `pair_scores` of each query and its items, descending; equal scores by ascending id.
        They are float64, like predictions.

    Raises
    ------
    ValueError
        If `k` is negative, a tile is below 1, a shape or dtype is wrong, or a query contains NaN
        or infinity.
    OverflowingRatingsError
        If the product of the largest norms (about 1e38) overflows float32.

    Notes
    -----
    A float32 dot product is within about r eps / 2 |q| |y| of the exact one [1]_. Two bounds follow
    for each query. The scan stops at items whose norm is too small to reach the threshold
    (Cauchy-Schwarz). If the k-th best float32 score exceeds the best dropped score by more than
    two errors, none of the true top k was dropped.

    References
    ----------
    .. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.1.
    """
    check_array("queries", queries, np.float32, 2)
    (n, rank), m = queries.shape, len(items.ids)
    if rank != items.rows.shape[1]:
        raise ValueError(f"queries have rank {rank} but items have rank {items.rows.shape[1]}")
    if k < 0:
        raise ValueError(f"k must be nonnegative but got {k}")
    if min(query_tile, item_tile) < 1:
        raise ValueError(f"tiles must be at least 1 but got {query_tile} x {item_tile}")
    k = min(k, m)
    ids, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float64)
    norms = norms_of("queries", queries)
    if k == 0 or n == 0:
        return ids, scores
    largest = norms.max() * items.norms[0]
    if largest > _F32.max / 2:
        raise OverflowingRatingsError(
            f"Predictions would overflow float32: the largest norms are {norms.max():g} and "
            f"{items.norms[0]:g}. Scale the ratings down."
        )
    width = min(k + _SPARE, m)
    # The second term covers products that underflow.
    errors = (rank + 2) * (_F32.eps / 2 * norms * items.norms[0] + _F32.tiny)
    excluded = excluded or Excluded.nothing()
    scanned = scan if native.library() is None else native_scan
    for start in range(0, n, query_tile):
        tile = slice(start, start + query_tile)
        out = excluded.of_queries(start, start + query_tile)
        keys = scanned(queries[tile], norms[tile], errors[tile], items, width, item_tile, out)
        ids[tile], scores[tile] = _rescore(queries[tile], keys, items, k)
        if width < m:  # Items were dropped: find the queries that may have lost one of their top k.
            floors = key_scores(keys[:, -k]).astype(np.float64) - 2 * errors[tile]
            doubtful = (key_scores(keys[:, 0]) >= floors) & (keys[:, 0] != NOTHING)
            for row in np.flatnonzero(doubtful).tolist():
                query, own = queries[start + row], out.places[out.queries == row]
                ids[start + row], scores[start + row] = rescan(query, floors[row], items, k, own)
    return ids, scores


def _rescore(
    queries: NDArray[np.float32], keys: NDArray[np.int64], items: ItemIndex, k: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the ids and float64 scores of the `k` best candidates in `keys`, best first."""
    places = keys & 0xFFFFFFFF
    scores = np.empty(keys.shape, np.float64)
    step = max(1, RESCORE // (keys.shape[1] * max(1, queries.shape[1])))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        scores[part] = pair_scores(queries[part, None], items.rows[places[part]])
    scores[keys == NOTHING] = -np.inf
    ids = items.ids[places]
    order = np.lexsort((ids, -scores))[:, :k]
    return np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)


def rescan(
    query: NDArray[np.float32],
    floor: float,
    items: ItemIndex,
    k: int,
    excluded: NDArray[np.intp],
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Score one query again with every item whose float32 score is at least `floor`."""
    approximate = items.rows @ query
    approximate[excluded] = -np.inf
    near = np.flatnonzero(approximate >= floor)
    ids, scores = items.ids[near], pair_scores(query, items.rows[near])
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]
