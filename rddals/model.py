"""The trained model: predictions, recommendations, files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, Broadcast, SparkContext
from pyspark.mllib.recommendation import Rating

from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import INT32_MAX, INT32_MIN
from rddals.errors import ModelReleasedError, SettingError, UnknownIdError
from rddals.kernels.topk import ItemIndex, pair_scores, top_k
from rddals.rdds.factors import FactorTable, is_pair, predict_pairs
from rddals.rdds.model_files import read_model, write_model
from rddals.rdds.spark import discard, head, is_stopped, spared

__all__ = ["MatrixFactorizationModel"]


class MatrixFactorizationModel:
    """A matrix factorisation: what users like, as dot products of factors.

    Made by `rddals.ALS.train`, `rddals.ALS.trainImplicit` or `load`; the methods are those of
    ``pyspark.mllib.recommendation.MatrixFactorizationModel``. The factors stay distributed, in
    two persisted RDDs, until `unpersist`.

    Attributes
    ----------
    rank : int
        Length of a factor.
    history : tuple of HalfStepDone
        Loss and seconds of every half-step of the training; empty for a loaded model.
    seed : int or None
        What the starting factors were drawn with.
    """

    def __init__(
        self,
        rank: int,
        user_factors: FactorTable,
        product_factors: FactorTable,
        *,
        history: Sequence[Any] = (),
        seed: int | None = None,
    ) -> None:
        self.rank = rank
        self.history = tuple(history)
        self.seed = seed
        self._users = user_factors
        self._products = product_factors
        # Recommendations for everybody are lazy, so what they read stays until `unpersist`.
        self._broadcasts: dict[FactorTable, Broadcast[FactorBlock]] = {}
        self._released = False

    def predict(self, user: int, product: int) -> float:
        """The predicted rating of a product by a user.

        Raises
        ------
        UnknownIdError
            If the model was not trained on the user or the product.
        """
        user_row = self._row("user", user)
        product_row = self._row("product", product)
        return float(pair_scores(user_row, product_row))

    def predictAll(self, user_product: RDD[tuple[int, int]]) -> RDD[Rating]:
        """Predicted ratings of ``(user, product)`` pairs, in no particular order.

        Pairs of which the model does not know the user or the product are left out. Like MLlib,
        this looks at the first pair; the others are checked when the result is computed.
        """
        assert isinstance(user_product, RDD), "user_product should be RDD of (user, product)"
        users, products = self._factors()
        assert all(map(is_pair, head(user_product))), (
            "user_product should be RDD of (user, product)"
        )
        return predict_pairs(users, products, user_product).flatMap(_as_ratings)

    def userFeatures(self) -> RDD[tuple[int, Any]]:
        """``(user, array('d'))`` pairs, placed as the users are."""
        return self._factors()[0].pairs()

    def productFeatures(self) -> RDD[tuple[int, Any]]:
        """``(product, array('d'))`` pairs, placed as the products are."""
        return self._factors()[1].pairs()

    def recommendProducts(self, user: int, num: int) -> list[Rating]:
        """The `num` products with the highest predicted ratings for a user, best first."""
        num = _count(num)
        ids, scores = self._best(self._row("user", user), self._factors()[1], num)
        return [Rating(int(user), id_, score) for id_, score in zip(ids, scores, strict=True)]

    def recommendUsers(self, product: int, num: int) -> list[Rating]:
        """The `num` users with the highest predicted ratings for a product, best first."""
        num = _count(num)
        ids, scores = self._best(self._row("product", product), self._factors()[0], num)
        return [Rating(id_, int(product), score) for id_, score in zip(ids, scores, strict=True)]

    def recommendProductsForUsers(self, num: int) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """For every user the `num` products with the highest predicted ratings, best first.

        The products' factors are broadcast: 4 bytes times rank for each, to every executor.
        """
        users, products = self._factors()
        return self._best_for_all(users, products, _count(num), _for_user)

    def recommendUsersForProducts(self, num: int) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """For every product the `num` users with the highest predicted ratings, best first.

        The users' factors are broadcast: 4 bytes times rank for each, to every executor.
        """
        users, products = self._factors()
        return self._best_for_all(products, users, _count(num), _for_product)

    def save(self, sc: SparkContext, path: str) -> None:
        """Save in MLlib's own format, at a path that does not exist yet.

        Raises
        ------
        ModelExistsError
            If there is a model at `path`.
        """
        _check_location(sc, path)
        write_model(sc, path, self.rank, self._factors())

    @classmethod
    def load(cls, sc: SparkContext, path: str) -> MatrixFactorizationModel:
        """Load a model that this class or MLlib saved.

        Raises
        ------
        ModelFormatError
            If there is none at `path`.
        """
        _check_location(sc, path)
        return cls(*read_model(sc, path))

    def unpersist(self) -> None:
        """Free all that the model holds; neither it nor what it recommended is of use then."""
        if not self._released and not is_stopped(self._users.blocks.context):
            for table in (self._users, self._products):
                discard(table.blocks)
            for broadcast in self._broadcasts.values():
                broadcast.destroy()
        self._broadcasts.clear()
        self._released = True

    def collected_factors(self) -> tuple[FactorBlock, FactorBlock]:
        """Both sides' factors on the driver, ids ascending."""
        users, products = self._factors()
        return users.collect(self.rank), products.collect(self.rank)

    def _factors(self) -> tuple[FactorTable, FactorTable]:
        """Users' and products' factors, which must still be there."""
        # Spark would compute them again, from ratings that may be gone or different by now.
        if self._released:
            raise ModelReleasedError(
                "unpersist() has freed this model's factors; train it again, or save() a model "
                "before and load it."
            )
        if is_stopped(self._users.blocks.context):
            raise ModelReleasedError(
                "The SparkContext of this model is stopped; save() a model before, and load it in "
                "a running one."
            )
        return self._users, self._products

    def _row(self, side: str, id_: Any) -> NDArray[np.float32]:
        table = self._factors()[0 if side == "user" else 1]
        try:
            asked = int(id_)
        except (TypeError, ValueError, OverflowError):
            raise SettingError(f"{side} must be an integer but got {id_!r}.") from None
        row = table.row(asked) if INT32_MIN <= asked <= INT32_MAX else None
        if row is None:
            raise UnknownIdError(
                f"{side}Id: {id_} not found in the model; it has no rating in the training data."
            )
        return row

    def _best(
        self, query: NDArray[np.float32], table: FactorTable, num: int
    ) -> tuple[list[int], list[float]]:
        bests = table.blocks.mapPartitions(partial(_best_of_blocks, query, num)).collect()
        ids = np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in bests)])
        scores = np.concatenate([np.empty(0), *(scores for _, scores in bests)])
        order = np.lexsort((ids, -scores))[:num]
        return ids[order].tolist(), scores[order].tolist()

    def _best_for_all(
        self, queries: FactorTable, items: FactorTable, num: int, as_ratings: Any
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        if items not in self._broadcasts:
            factors = items.collect(self.rank)
            self._broadcasts[items] = items.blocks.context.broadcast(factors)
        best = partial(_best_for_blocks, self._broadcasts[items], num, as_ratings)
        return queries.blocks.mapPartitions(best, preservesPartitioning=True)


def _as_ratings(batch: tuple[Any, Any, Any]) -> Iterator[Rating]:
    users, products, predictions = (column.tolist() for column in batch)
    return map(Rating, users, products, predictions)


@spared
def _best_of_blocks(
    query: NDArray[np.float32], num: int, blocks: Iterable[FactorBlock]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    for block in blocks:
        ids, scores = top_k(query[None, :], ItemIndex.build(block.ids, block.rows), num)
        yield ids[0], scores[0]


@spared
def _best_for_blocks(
    items: Broadcast[FactorBlock], num: int, as_ratings: Any, blocks: Iterable[FactorBlock]
) -> Iterator[tuple[int, tuple[Rating, ...]]]:
    index = ItemIndex.build(items.value.ids, items.value.rows)
    for block in blocks:
        ids, scores = top_k(block.rows, index, num)
        for query, best, values in zip(
            block.ids.tolist(), ids.tolist(), scores.tolist(), strict=True
        ):
            yield query, tuple(as_ratings(query, best, values))


def _for_user(user: int, products: list[int], scores: list[float]) -> Iterator[Rating]:
    return (Rating(user, product, score) for product, score in zip(products, scores, strict=True))


def _for_product(product: int, users: list[int], scores: list[float]) -> Iterator[Rating]:
    return (Rating(user, product, score) for user, score in zip(users, scores, strict=True))


def _count(num: Any) -> int:
    if isinstance(num, (int, np.integer)) and not isinstance(num, bool) and num >= 0:
        return int(num)
    raise SettingError(f"num must be a nonnegative integer but got {num!r}.")


def _check_location(sc: Any, path: Any) -> None:
    if not isinstance(sc, SparkContext):
        raise TypeError(f"sc should be a SparkContext, got type {type(sc)}")
    if not isinstance(path, str):
        raise TypeError(f"path should be a string, got type {type(path)}")
    if is_stopped(sc):
        raise SettingError("The SparkContext is stopped; pass a running one.")
    if not path:
        raise SettingError("path is empty; pass that of a directory.")
