"""A model in one process's memory: answers without a Spark job."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark.mllib.recommendation import Rating

from rddals.blocks.factors import FactorBlock
from rddals.blocks.popularity import Popularity
from rddals.kernels import native
from rddals.kernels.items import Excluded, ItemIndex
from rddals.kernels.topk import pair_scores, top_k
from rddals.model.query import TopNQuery, checked_id, popular_then_best, unknown_id, uses_fallback

__all__ = ["LocalModel"]

#: Products scored before the first look at which others are in reach.
_FIRST_TILE = 8192


class LocalModel:
    """The factors of a model as NumPy arrays, for serving.

    Made by `rddals.MatrixFactorizationModel.toLocal`; it says what that model says. It needs no
    SparkContext, pickles, and may be read by several threads at once.

    Attributes
    ----------
    users, products : FactorBlock
        ``ids`` ascending (int32), and ``rows`` of shape (n, rank) (float32).
    """

    def __init__(self, users: FactorBlock, products: FactorBlock, popular: Popularity) -> None:
        self.users = users
        self.products = products
        self._popular = popular.ids
        # A dictionary finds an id in a tenth of the time that searchsorted takes.
        self._user_rows = {id_: row for row, id_ in enumerate(users.ids.tolist())}
        self._product_rows = {id_: row for row, id_ in enumerate(products.ids.tolist())}
        # The compiled library has no use for columns.
        columns = native.library() is None
        self._index = ItemIndex.build(products.ids, products.rows, columns=columns)

    @property
    def rank(self) -> int:
        """Length of a factor."""
        return int(self.users.rows.shape[1])

    def predict(self, user: int, product: int) -> float:
        """The predicted rating of a product by a user.

        Raises
        ------
        UnknownIdError
            If the model was not trained on the user or the product.
        """
        try:
            user_row = self.users.rows[self._user_rows[user]]
            product_row = self.products.rows[self._product_rows[product]]
        except (KeyError, TypeError):
            user_row = self._row("user", user)
            product_row = self._row("product", product)
        return float(pair_scores(user_row, product_row))

    def recommend(
        self,
        user: int,
        num: int,
        *,
        exclude: Any = (),
        candidates: Any = None,
        fallback: str | None = None,
    ) -> list[Rating]:
        """The `num` products with the highest predicted ratings for a user, best first.

        Arguments and errors are those of `rddals.MatrixFactorizationModel.recommendProducts`.
        """
        request = TopNQuery.checked(num, exclude, candidates)
        id_ = checked_id("user", user)
        if uses_fallback(fallback) and id_ not in self._user_rows:
            mean = self._mean_user
            found = popular_then_best(
                self._popular,
                request,
                lambda ids: pair_scores(mean, self._known(ids).rows),
                lambda rest: self._best(mean, rest),
            )
        else:
            found = self._best(self._row("user", user), request)
        return [Rating(id_, product, score) for product, score in found]

    def _row(self, side: str, id_: Any) -> NDArray[np.float32]:
        factors, places = (
            (self.users, self._user_rows) if side == "user" else (self.products, self._product_rows)
        )
        place = places.get(checked_id(side, id_))
        if place is None:
            raise unknown_id(side, id_)
        row: NDArray[np.float32] = factors.rows[place]
        return row

    def _best(self, query: NDArray[np.float32], asked: TopNQuery) -> list[tuple[int, float]]:
        index, out = self._index, None
        if asked.candidates is not None:
            wanted = self._known(np.setdiff1d(asked.candidates, asked.excluded, assume_unique=True))
            index = ItemIndex.build(wanted.ids, wanted.rows)
        elif len(asked.excluded):
            known = self._known(asked.excluded).ids
            out = Excluded.of(np.zeros(len(known), np.intp), known, index)
        (ids,), (scores,) = top_k(
            query[None, :], index, asked.num, excluded=out, item_tile=_FIRST_TILE
        )
        count = int(np.isfinite(scores).sum())
        return list(zip(ids[:count].tolist(), scores[:count].tolist(), strict=True))

    def _known(self, ids: NDArray[Any]) -> FactorBlock:
        positions, found = self.products.find(ids)
        positions = positions[found]
        return FactorBlock(self.products.ids[positions], self.products.rows[positions])

    @cached_property
    def _mean_user(self) -> NDArray[np.float32]:
        mean: NDArray[np.float64] = self.users.rows.mean(axis=0, dtype=np.float64)
        return mean.astype(np.float32)
