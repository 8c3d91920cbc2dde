"""Precision and NDCG of the recommendations for a block of users, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock

#: Number of users scored at a time.
TILE = 128


@dataclass(frozen=True, slots=True)
class RankingSums:
    """Sums of ranking metrics over users with at least one rating above zero.

    Attributes
    ----------
    top : int
        Number of recommendations per user.
    users, unknown_users : int
        Users with and without a factor row.
    ndcg_sum, precision_sum : float
        Sums over the known users.
    """

    top: int
    users: int = 0
    unknown_users: int = 0
    ndcg_sum: float = 0.0
    precision_sum: float = 0.0

    @property
    def ndcg(self) -> float | None:
        """Mean normalised discounted cumulative gain; None without a known user."""
        return self.ndcg_sum / self.users if self.users else None

    @property
    def precision(self) -> float | None:
        """Mean share of recommendations that are relevant; None without a known user."""
        return self.precision_sum / self.users if self.users else None

    def __add__(self, other: RankingSums) -> RankingSums:
        return RankingSums(
            self.top,
            self.users + other.users,
            self.unknown_users + other.unknown_users,
            self.ndcg_sum + other.ndcg_sum,
            self.precision_sum + other.precision_sum,
        )


def rank_block(
    users: FactorBlock, products: FactorBlock, relevant: RatingBlock, seen: RatingBlock, top: int
) -> RankingSums:
    """Rank the products for each user and score the first `top` of them.

    A product is relevant, with gain 1, if its rating is above zero; duplicates count once. A
    relevant product that the model does not know counts as missed.

    Parameters
    ----------
    users, products : FactorBlock
    relevant : RatingBlock
        Ratings whose products should be recommended.
    seen : RatingBlock
        Ratings whose products are excluded from the recommendations.
    top : int
        Number of recommendations per user.
    """
    positive = relevant.ratings > 0
    pairs = np.unique(np.stack([relevant.users[positive], relevant.products[positive]]), axis=1)
    ids, sizes = np.unique(pairs[0], return_counts=True)
    rows, known = users.find(ids)
    by_user = np.argsort(seen.users, kind="stable")
    seen_users, seen_products = seen.users[by_user], seen.products[by_user]
    sums = RankingSums(top, unknown_users=int(np.count_nonzero(~known)))
    ids, rows, sizes = ids[known], rows[known], sizes[known]
    for start in range(0, len(ids), TILE):
        tile = ids[start : start + TILE]
        scores = users.rows[rows[start : start + TILE]] @ products.rows.T
        scores[_cells(tile, products.ids, seen_users, seen_products)] = -np.inf
        hits = np.zeros(scores.shape, dtype=bool)
        hits[_cells(tile, products.ids, pairs[0], pairs[1])] = True
        sums += _scored(scores, hits, sizes[start : start + TILE], top)
    return sums


def _cells(
    tile: NDArray[np.int32],
    product_ids: NDArray[np.int32],
    users: NDArray[np.int32],
    products: NDArray[np.int32],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the cells of a tile's matrix for pairs sorted by user; skip pairs outside it."""
    low, high = np.searchsorted(users, tile[0]), np.searchsorted(users, tile[-1], side="right")
    tile_users, tile_products = users[low:high], products[low:high]
    rows = np.minimum(np.searchsorted(tile, tile_users), len(tile) - 1)
    columns = np.minimum(np.searchsorted(product_ids, tile_products), len(product_ids) - 1)
    inside = (tile[rows] == tile_users) & (product_ids[columns] == tile_products)
    return rows[inside], columns[inside]


def _scored(
    scores: NDArray[np.float32], hits: NDArray[np.bool_], sizes: NDArray[np.intp], top: int
) -> RankingSums:
    best = np.argpartition(-scores, min(top, scores.shape[1]) - 1, axis=1)[:, :top]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)  # (users, top), best first
    # A seen product is never a hit, even if fewer than `top` unseen products exist.
    relevant = np.take_along_axis(hits, best, axis=1)
    relevant &= np.isfinite(np.take_along_axis(scores, best, axis=1))
    discounts = 1.0 / np.log2(np.arange(2, top + 2))
    ideal = np.cumsum(discounts)[np.minimum(sizes, top) - 1]
    gains = relevant @ discounts[: relevant.shape[1]]
    return RankingSums(
        top,
        users=len(sizes),
        ndcg_sum=float((gains / ideal).sum()),
        precision_sum=float(relevant.sum() / top),
    )
