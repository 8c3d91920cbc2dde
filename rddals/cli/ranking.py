"""Precision and NDCG of the recommendations for a block of users."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock
from rddals.kernels.items import Excluded, ItemIndex
from rddals.kernels.topk import top_k


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
        sums = (getattr(self, each.name) + getattr(other, each.name) for each in fields(self)[1:])
        return RankingSums(self.top, *sums)


def rank_block(
    users: FactorBlock, products: FactorBlock, relevant: RatingBlock, seen: RatingBlock, top: int
) -> RankingSums:
    """Rank the products for each user, without those in `seen`, and score the first `top` of them.

    A product is relevant, with gain 1, if its rating is above zero; duplicates count once. A
    relevant product that the model does not know counts as missed.
    """
    positive = relevant.ratings > 0
    pairs = np.unique(np.stack([relevant.users[positive], relevant.products[positive]]), axis=1)
    ids, sizes = np.unique(pairs[0], return_counts=True)
    queried, known = users.only(ids), np.isin(ids, users.ids)
    index = ItemIndex.build(products.ids, products.rows)
    positions, asked = queried.find(seen.users)
    excluded = Excluded.of(positions[asked], seen.products[asked], index)
    best, scores = top_k(queried.rows, index, top, excluded=excluded)
    # A seen product is never a hit, even if fewer than `top` unseen products exist.
    hits = np.isin(_codes(queried.ids[:, None], best), _codes(*pairs)) & np.isfinite(scores)
    discounts = 1.0 / np.log2(np.arange(2, top + 2))
    ideal = np.cumsum(discounts)[np.minimum(sizes[known], top) - 1]
    gains = hits @ discounts[: hits.shape[1]]
    return RankingSums(
        top,
        users=len(gains),
        unknown_users=len(ids) - len(gains),
        ndcg_sum=float((gains / ideal).sum()),
        precision_sum=float(hits.sum() / top),
    )


def _codes(users: NDArray[np.int32], products: NDArray[np.int32]) -> NDArray[Any]:
    """Return a distinct number for each pair of a user and a product."""
    return users.astype(np.int64) << 32 | products.view(np.uint32)
