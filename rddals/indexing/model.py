"""Model whose users and products are identified by string or 64-bit integer keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from pyspark import RDD, Broadcast, SparkContext

from rddals.blocks.sides import PRODUCTS, USERS
from rddals.errors import ModelFormatError
from rddals.indexing.files import read_keys, write_keys
from rddals.indexing.key_table import KeyTable, is_key_pair
from rddals.indexing.keys import Key
from rddals.indexing.translation import KeyTranslator, errors_by_key, ids_without_key, swapped
from rddals.model.factors import rating_for
from rddals.model.files import check_free, checked_location, written
from rddals.model.matrix import MatrixFactorizationModel
from rddals.model.top_n_query import TopNQuery
from rddals.rdds.context import head
from rddals.rdds.lifetimes import undo_on_failure


class KeyedRating(NamedTuple):
    """Actual or predicted rating of a user and a product, given by their keys."""

    user: Key
    product: Key
    rating: float


class KeyedModel:
    """Wrapper of a `rddals.MatrixFactorizationModel` that uses keys instead of ids.

    Created by `IndexedRatings.keyed` or `load`. The methods and their parameters are those of the
    wrapped model, with keys in place of ids and `KeyedRating` in place of ``Rating``.

    Attributes
    ----------
    model : MatrixFactorizationModel
        The wrapped model, which uses ids.
    """

    def __init__(self, model: MatrixFactorizationModel, keys: KeyTable) -> None:
        self.model = model
        self._keys = KeyTranslator(keys)

    def __repr__(self) -> str:
        return repr(self.model).replace(type(self.model).__name__, "KeyedModel", 1)

    @property
    def rank(self) -> int:
        """Length of each factor."""
        return self.model.rank

    def predict(self, user: Key, product: Key) -> float:
        """Predict the rating of a product by a user.

        Raises
        ------
        UnknownIdError
            If the model was not trained on the user or the product.
        """
        ids = self._keys.id(USERS, user), self._keys.id(PRODUCTS, product)
        with errors_by_key((USERS, user), (PRODUCTS, product)):
            return self.model.predict(*ids)

    def predictAll(self, user_product: RDD[tuple[Key, Key]]) -> RDD[KeyedRating]:
        """Predict the ratings of ``(user, product)`` pairs, in no particular order.

        Pairs with an unknown user or product are left out.
        """
        assert isinstance(user_product, RDD), "user_product should be RDD of (user, product)"
        keys = self._keys.table
        assert all(map(is_key_pair, head(user_product))), (
            "user_product should be RDD of (user, product)"
        )
        by_user = keys.with_ids(USERS, user_product)
        by_product = keys.with_ids(PRODUCTS, by_user.map(swapped))
        predicted = self.model.predictAll(by_product.map(swapped))
        users = keys.with_keys(USERS, predicted.map(_user_first))
        return keys.with_keys(PRODUCTS, users.map(_product_first)).map(_as_keyed)

    def recommendProducts(
        self,
        user: Key,
        num: int,
        *,
        exclude: Iterable[Key] = (),
        candidates: Iterable[Key] | None = None,
        fallback: str | None = None,
    ) -> list[KeyedRating]:
        """Return the `num` products with the highest predicted ratings for a user, best first.

        Parameters are those of `rddals.MatrixFactorizationModel.recommendProducts`.
        """
        return self._recommend(USERS, user, num, exclude, candidates, fallback)

    def recommendUsers(
        self,
        product: Key,
        num: int,
        *,
        exclude: Iterable[Key] = (),
        candidates: Iterable[Key] | None = None,
        fallback: str | None = None,
    ) -> list[KeyedRating]:
        """Return the `num` users with the highest predicted ratings for a product, best first.

        Parameters are those of `rddals.MatrixFactorizationModel.recommendUsers`.
        """
        return self._recommend(PRODUCTS, product, num, exclude, candidates, fallback)

    def recommendProductsForUsers(
        self, num: int, *, excludeSeen: Any = None, candidates: Iterable[Key] | None = None
    ) -> RDD[tuple[Key, tuple[KeyedRating, ...]]]:
        """Return the `num` best products for every user, best first.

        `excludeSeen` accepts ratings with keys, like `index_ratings`. Ratings of unknown users or
        products are ignored.
        """
        return self._recommend_for_all(USERS, num, excludeSeen, candidates)

    def recommendUsersForProducts(
        self, num: int, *, excludeSeen: Any = None, candidates: Iterable[Key] | None = None
    ) -> RDD[tuple[Key, tuple[KeyedRating, ...]]]:
        """Return the `num` best users for every product, best first.

        Parameters are those of `recommendProductsForUsers`, with users and products exchanged.
        """
        return self._recommend_for_all(PRODUCTS, num, excludeSeen, candidates)

    def similarProducts(self, product: Key, num: int) -> list[tuple[Key, float]]:
        """Return the `num` products with the most similar factors, and the cosine similarities."""
        return self._similar(PRODUCTS, product, num)

    def similarUsers(self, user: Key, num: int) -> list[tuple[Key, float]]:
        """Return the `num` users with the most similar factors, and the cosine similarities."""
        return self._similar(USERS, user, num)

    def userFeatures(self) -> RDD[tuple[Key, Any]]:
        """Return ``(user, array('d'))`` pairs."""
        return self._keys.table.with_keys(USERS, self.model.userFeatures())

    def productFeatures(self) -> RDD[tuple[Key, Any]]:
        """Return ``(product, array('d'))`` pairs."""
        return self._keys.table.with_keys(PRODUCTS, self.model.productFeatures())

    def save(self, sc: SparkContext, path: str) -> None:
        """Save the model in MLlib's format, and the keys beside it.

        MLlib and `rddals.MatrixFactorizationModel.load` load the model without the keys.
        """
        keys = self._keys.table
        sc = checked_location(sc, path)
        check_free(sc, path, ["keys"])
        self.model.save(sc, path)
        with written(path):
            write_keys(sc, path, keys)

    @classmethod
    def load(cls, sc: SparkContext, path: str) -> KeyedModel:
        """Load a model and its keys that `save` wrote.

        Raises
        ------
        ModelFormatError
            If `path` does not contain a model with keys.
        """
        model = MatrixFactorizationModel.load(sc, path)
        with undo_on_failure() as undo, ExitStack() as stack:
            undo.callback(model.unpersist)
            keys = read_keys(sc, path).retain()
            stack.callback(keys.release)
            if unknown := ids_without_key(model, keys):
                raise ModelFormatError(
                    f"{path} holds keys and a model that do not belong together: {unknown}; load "
                    "the model without keys with MatrixFactorizationModel.load()."
                )
            return cls(model, keys)

    def unpersist(self) -> None:
        """Release the model, and the keys unless ratings or other models need them."""
        self._keys.release()
        self.model.unpersist()

    def _recommend(
        self, side: int, key: Key, num: int, exclude: Any, candidates: Any, fallback: Any
    ) -> list[KeyedRating]:
        """Return the best keys of the other side for a key of `side`."""
        id_ = self._keys.id(side, key, unknown=fallback is not None)
        query = TopNQuery.checked(
            num,
            self._keys.ids(1 - side, "exclude", exclude),
            self._candidates(1 - side, candidates),
        )
        with errors_by_key((side, key)):
            best = self.model.factors.recommend(side, id_, query, fallback)
        others = self._keys.table.keys_of(1 - side, [rating[1 - side] for rating in best])
        return [
            rating_for(side, key, other, rating.rating, KeyedRating)
            for other, rating in zip(others, best, strict=True)
        ]

    def _recommend_for_all(
        self, side: int, num: int, seen: Any, candidates: Any
    ) -> RDD[tuple[Key, tuple[KeyedRating, ...]]]:
        """Return the best keys of the other side for every key of `side`."""
        query = TopNQuery.checked(num, candidates=self._candidates(1 - side, candidates))
        with self._keys.ratings_with_ids(seen) as seen_ids:
            best = self.model.factors.recommend_for_all(side, query, seen_ids)
        task = partial(_as_keyed_ratings, side, self._keys.all_keys(1 - side))
        return self._keys.table.with_keys(side, best).mapPartitions(task)

    def _similar(self, side: int, key: Key, num: int) -> list[tuple[Key, float]]:
        id_ = self._keys.id(side, key)
        with errors_by_key((side, key)):
            best = self.model.factors.similar(side, id_, num)
        keys = self._keys.table.keys_of(side, [id_ for id_, _ in best])
        return list(zip(keys, (score for _, score in best), strict=True))

    def _candidates(self, side: int, candidates: Any) -> list[int] | None:
        return None if candidates is None else self._keys.ids(side, "candidates", candidates)


def _user_first(rating: Any) -> tuple[int, tuple[int, float]]:
    return rating.user, (rating.product, rating.rating)


def _product_first(pair: tuple[Key, tuple[int, float]]) -> tuple[int, tuple[Key, float]]:
    user, (product, rating) = pair
    return product, (user, rating)


def _as_keyed(pair: tuple[Key, tuple[Key, float]]) -> KeyedRating:
    product, (user, rating) = pair
    return KeyedRating(user, product, rating)


def _as_keyed_ratings(
    side: int, others: Broadcast[list[Key]], best: Iterable[tuple[Key, Any]]
) -> Iterator[tuple[Key, tuple[KeyedRating, ...]]]:
    """Replace the ids of the other side, of which `others` has all keys."""
    keys = others.value
    for key, ratings in best:
        yield (
            key,
            tuple(
                rating_for(side, key, keys[rating[1 - side]], rating.rating, KeyedRating)
                for rating in ratings
            ),
        )
