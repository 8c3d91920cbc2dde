"""Precision and NDCG of a block of users' recommendations; NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock

__all__ = ["RankingSums", "rank_block"]

#: Users that are scored at a time.
TILE = 128


@dataclass(frozen=True, slots=True)
class RankingSums:
    """Sums over users with a rating above zero to find.

    Attributes
    ----------
    top : int
        How many recommendations are looked at.
    users, unknown_users : int
        Users that the model knows, who are ranked for, and others.
    ndcg_sum, precision_sum : float
    """

    top: int
    users: int = 0
    unknown_users: int = 0
    ndcg_sum: float = 0.0
    precision_sum: float = 0.0

    @property
    def ndcg(self) -> float | None:
        """Mean normalised discounted cumulative gain; None without a user."""
        return self.ndcg_sum / self.users if self.users else None

    @property
    def precision(self) -> float | None:
        """Mean share of the recommendations that were found; None without a user."""
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
    users: FactorBlock, products: FactorBlock, wanted: RatingBlock, seen: RatingBlock, top: int
) -> RankingSums:
    """Rank the products for each user and look for the wanted ones among the first.

    A product counts once, with gain 1, if its rating is above zero. One that the model does not
    know cannot be found and counts as missed.

    Parameters
    ----------
    users, products : FactorBlock
    wanted : RatingBlock
        What the users are to be recommended.
    seen : RatingBlock
        What they are not recommended again.
    top : int
    """
    positive = wanted.ratings > 0
    pairs = np.unique(np.stack([wanted.users[positive], wanted.products[positive]]), axis=1)
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
    """Where pairs, ascending by user, stand in the tile's matrix; those outside it are left out."""
    low, high = np.searchsorted(users, tile[0]), np.searchsorted(users, tile[-1], side="right")
    here, product = users[low:high], products[low:high]
    rows = np.minimum(np.searchsorted(tile, here), len(tile) - 1)
    columns = np.minimum(np.searchsorted(product_ids, product), len(product_ids) - 1)
    inside = (tile[rows] == here) & (product_ids[columns] == product)
    return rows[inside], columns[inside]


def _scored(
    scores: NDArray[np.float32], hits: NDArray[np.bool_], sizes: NDArray[np.intp], top: int
) -> RankingSums:
    best = np.argpartition(-scores, min(top, scores.shape[1]) - 1, axis=1)[:, :top]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)  # (users, top), best first
    # What was seen is no recommendation, even where nothing else is left.
    found = np.take_along_axis(hits, best, axis=1)
    found &= np.isfinite(np.take_along_axis(scores, best, axis=1))
    discounts = 1.0 / np.log2(np.arange(2, top + 2))
    ideal = np.cumsum(discounts)[np.minimum(sizes, top) - 1]
    gains = found @ discounts[: found.shape[1]]
    return RankingSums(
        top,
        users=len(sizes),
        ndcg_sum=float((gains / ideal).sum()),
        precision_sum=float(found.sum() / top),
    )
