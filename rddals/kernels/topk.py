"""The k best items of every query: top-N of a matrix product.

Float32 scores only choose whom to score again in float64, and a rounding bound tells when they
could have chosen wrongly; those queries, in practice the ones with a tie at the k-th place, are
settled against every item in reach. So what comes out depends neither on who scans the items
(`kernels.scan` or the compiled library) nor on their tiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rddals.errors import OverflowingRatingsError
from rddals.kernels import native
from rddals.kernels.items import Excluded, ItemIndex, check_array, norms_of
from rddals.kernels.native.scan import native_scan
from rddals.kernels.scan import NOTHING, key_scores, scan

__all__ = ["pair_scores", "top_k"]

_F32 = np.finfo(np.float32)
_SPARE = 2  # Items kept beyond k. A near-tie at the k-th place seldom spans three, so few settle.
_RESCORE = 1 << 18  # Gathered float32 values per rescoring step: 1 MiB.


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
        How many are scored at a time. It affects speed and memory (NumPy holds 4 bytes times the
        product), not the result.

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
    scanned = scan if native.library() is None else native_scan
    for start in range(0, n, query_tile):
        tile = slice(start, start + query_tile)
        out = excluded.of_queries(start, start + query_tile)
        keys = scanned(queries[tile], norms[tile], errors[tile], items, width, item_tile, out)
        ids[tile], scores[tile] = _rescore(queries[tile], keys, items, k)
        if width < m:  # Something was dropped: from which queries could it have been one too many?
            floors = key_scores(keys[:, -k]).astype(np.float64) - 2 * errors[tile]
            doubtful = (key_scores(keys[:, 0]) >= floors) & (keys[:, 0] != NOTHING)
            for row in np.flatnonzero(doubtful).tolist():
                query, own = queries[start + row], out.places[out.queries == row]
                settled = _settle(query, floors[row], items, k, own)
                ids[start + row], scores[start + row] = settled
    return ids, scores


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
    scores[keys == NOTHING] = -np.inf
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
