"""Model in the memory of one process, which answers without a Spark job."""

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
from rddals.model.top_n_query import (
    TopNQuery,
    checked_id,
    popular_then_best,
    unknown_id,
    uses_fallback,
)

#: Number of products scored before the search first bounds the remaining ones.
_FIRST_TILE = 8192


class LocalModel:
    """Factors of a model as NumPy arrays, for serving.

    Created by `rddals.MatrixFactorizationModel.toLocal`; gives the same answers as that model. It
    needs no SparkContext, can be pickled, and can be read by several threads at once.

    Attributes
    ----------
    users, products : FactorBlock
        Factors of each side: ``ids`` (int32, ascending) and ``rows`` of shape (n, rank)
        (float32).
    """

    def __init__(self, users: FactorBlock, products: FactorBlock, popular: Popularity) -> None:
        self.users = users
        self.products = products
        self._popular = popular.ids
        # A dictionary lookup takes a tenth of the time of searchsorted.
        self._user_rows = {id_: row for row, id_ in enumerate(users.ids.tolist())}
        self._product_rows = {id_: row for row, id_ in enumerate(products.ids.tolist())}
        # Only the NumPy scan reads columns.
        columns = native.library() is None
        self._index = ItemIndex.build(products.ids, products.rows, columns=columns)

    def __repr__(self) -> str:
        users, products = len(self.users.ids), len(self.products.ids)
        return f"LocalModel(rank={self.rank}, users={users}, products={products})"

    @property
    def rank(self) -> int:
        """Length of each factor."""
        return int(self.users.rows.shape[1])

    def predict(self, user: int, product: int) -> float:
        """Predict the rating of a product by a user.

        Parameters
        ----------
        user, product : int
            Ids.

        Returns
        -------
        float

        Raises
        ------
        UnknownIdError
            If the model was not trained on the user or the product.
        """
        return float(pair_scores(self._row("user", user), self._row("product", product)))

    def recommend(
        self,
        user: int,
        num: int,
        *,
        exclude: Any = (),
        candidates: Any = None,
        fallback: str | None = None,
    ) -> list[Rating]:
        """Return the `num` products with the highest predicted ratings for a user, best first.

        Parameters, ordering and errors are those of
        `rddals.MatrixFactorizationModel.recommendProducts`.
        """
        query = TopNQuery.checked(num, exclude, candidates)
        id_ = checked_id("user", user)
        if uses_fallback(fallback) and id_ not in self._user_rows:
            mean = self._mean_user
            best = popular_then_best(
                self._popular,
                query,
                lambda ids: pair_scores(mean, self._known(ids).rows),
                lambda rest: self._best(mean, rest),
            )
        else:
            best = self._best(self._row("user", user), query)
        return [Rating(id_, product, score) for product, score in best]

    def _row(self, side: str, id_: Any) -> NDArray[np.float32]:
        factors, positions = (
            (self.users, self._user_rows) if side == "user" else (self.products, self._product_rows)
        )
        position = positions.get(checked_id(side, id_))
        if position is None:
            raise unknown_id(side, id_)
        return factors.rows[position]

    def _best(self, row: NDArray[np.float32], query: TopNQuery) -> list[tuple[int, float]]:
        index, excluded = self._index, None
        if query.candidates is not None:
            candidates = np.setdiff1d(query.candidates, query.excluded, assume_unique=True)
            products = self._known(candidates)
            index = ItemIndex.build(products.ids, products.rows)
        elif len(query.excluded):
            ids = self._known(query.excluded).ids
            excluded = Excluded.of(np.zeros(len(ids), np.intp), ids, index)
        (ids,), (scores,) = top_k(
            row[None, :], index, query.num, excluded=excluded, item_tile=_FIRST_TILE
        )
        count = int(np.isfinite(scores).sum())
        return list(zip(ids[:count].tolist(), scores[:count].tolist(), strict=True))

    def _known(self, ids: NDArray[Any]) -> FactorBlock:
        """Return the factors of the known ids among `ids`."""
        positions, known = self.products.find(ids)
        positions = positions[known]
        return FactorBlock(self.products.ids[positions], self.products.rows[positions])

    @cached_property
    def _mean_user(self) -> NDArray[np.float32]:
        return self.users.rows.mean(axis=0, dtype=np.float64).astype(np.float32)
