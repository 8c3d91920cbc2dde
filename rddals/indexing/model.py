"""Model whose users and products are identified by string or 64-bit integer keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import starmap
from typing import Any, NamedTuple

import numpy as np
from pyspark import RDD, Broadcast, SparkContext

from rddals.blocks.sides import ID_NAMES, PRODUCTS, USERS
from rddals.errors import (
    ModelFormatError,
    ModelReleasedError,
    RatingTypeError,
    SettingError,
    UnknownIdError,
)
from rddals.indexing.files import read_keys, write_keys
from rddals.indexing.key_table import KeyTable, is_key_pair
from rddals.indexing.keys import Key, checked_key
from rddals.model.files import check_free, written
from rddals.model.matrix import MatrixFactorizationModel, check_location
from rddals.rdds.context import head, is_stopped
from rddals.rdds.frames import Columns, key_rows
from rddals.rdds.ingest import prepare
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

__all__ = ["KeyedModel", "KeyedRating", "ids_without_key"]

FLOAT32_MAX = float(np.finfo(np.float32).max)


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
        self._keys = keys.retain()
        self._broadcasts: dict[int, Broadcast[list[Key]]] = {}
        self._released = False

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
        ids = self._id(USERS, user), self._id(PRODUCTS, product)
        with _errors_by_key((USERS, user), (PRODUCTS, product)):
            return self.model.predict(*ids)

    def predictAll(self, user_product: RDD[tuple[Key, Key]]) -> RDD[KeyedRating]:
        """Predict the ratings of ``(user, product)`` pairs, in no particular order.

        Pairs with an unknown user or product are left out.
        """
        assert isinstance(user_product, RDD), "user_product should be RDD of (user, product)"
        keys = self._live_keys()
        assert all(map(is_key_pair, head(user_product))), (
            "user_product should be RDD of (user, product)"
        )
        by_user = keys.with_ids(USERS, user_product)
        by_product = keys.with_ids(PRODUCTS, by_user.map(_swapped))
        predicted = self.model.predictAll(by_product.map(_swapped))
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
        id_ = self._id(USERS, user, unknown=fallback is not None)
        options = self._query_options(PRODUCTS, exclude, candidates)
        with _errors_by_key((USERS, user)):
            best = self.model.recommendProducts(id_, num, **options, fallback=fallback)
        products = self._live_keys().keys_of(PRODUCTS, [rating.product for rating in best])
        scores = [rating.rating for rating in best]
        return [KeyedRating(user, *pair) for pair in zip(products, scores, strict=True)]

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
        id_ = self._id(PRODUCTS, product, unknown=fallback is not None)
        options = self._query_options(USERS, exclude, candidates)
        with _errors_by_key((PRODUCTS, product)):
            best = self.model.recommendUsers(id_, num, **options, fallback=fallback)
        users = self._live_keys().keys_of(USERS, [rating.user for rating in best])
        scores = [rating.rating for rating in best]
        return [
            KeyedRating(user, product, score) for user, score in zip(users, scores, strict=True)
        ]

    def recommendProductsForUsers(
        self, num: int, *, excludeSeen: Any = None, candidates: Iterable[Key] | None = None
    ) -> RDD[tuple[Key, tuple[KeyedRating, ...]]]:
        """Return the `num` best products for every user, best first.

        `excludeSeen` accepts ratings with keys, like `index_ratings`. Ratings of unknown users or
        products are ignored.
        """
        options = self._candidates(PRODUCTS, candidates)
        with self._with_ids(excludeSeen) as seen:
            best = self.model.recommendProductsForUsers(num, excludeSeen=seen, **options)
        name = partial(_name_products, self._all_keys(PRODUCTS))
        return self._live_keys().with_keys(USERS, best).mapPartitions(name)

    def recommendUsersForProducts(
        self, num: int, *, excludeSeen: Any = None, candidates: Iterable[Key] | None = None
    ) -> RDD[tuple[Key, tuple[KeyedRating, ...]]]:
        """Return the `num` best users for every product, best first.

        Parameters are those of `recommendProductsForUsers`, with users and products exchanged.
        """
        options = self._candidates(USERS, candidates)
        with self._with_ids(excludeSeen) as seen:
            best = self.model.recommendUsersForProducts(num, excludeSeen=seen, **options)
        name = partial(_name_users, self._all_keys(USERS))
        return self._live_keys().with_keys(PRODUCTS, best).mapPartitions(name)

    def similarProducts(self, product: Key, num: int) -> list[tuple[Key, float]]:
        """Return the `num` products with the most similar factors, and the cosine similarities."""
        id_ = self._id(PRODUCTS, product)
        with _errors_by_key((PRODUCTS, product)):
            return self._with_keys(PRODUCTS, self.model.similarProducts(id_, num))

    def similarUsers(self, user: Key, num: int) -> list[tuple[Key, float]]:
        """Return the `num` users with the most similar factors, and the cosine similarities."""
        id_ = self._id(USERS, user)
        with _errors_by_key((USERS, user)):
            return self._with_keys(USERS, self.model.similarUsers(id_, num))

    def userFeatures(self) -> RDD[tuple[Key, Any]]:
        """Return ``(user, array('d'))`` pairs."""
        return self._live_keys().with_keys(USERS, self.model.userFeatures())

    def productFeatures(self) -> RDD[tuple[Key, Any]]:
        """Return ``(product, array('d'))`` pairs."""
        return self._live_keys().with_keys(PRODUCTS, self.model.productFeatures())

    def save(self, sc: SparkContext, path: str) -> None:
        """Save the model in MLlib's format, and the keys beside it.

        MLlib and `rddals.MatrixFactorizationModel.load` load the model without the keys.
        """
        keys = self._live_keys()
        check_location(sc, path)
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
        keys: KeyTable | None = None
        try:
            keys = read_keys(sc, path).retain()
            if unknown := ids_without_key(model, keys):
                raise ModelFormatError(
                    f"{path} holds keys and a model that do not belong together: {unknown}; load "
                    "the model without keys with MatrixFactorizationModel.load()."
                )
            return cls(model, keys)
        except BaseException:
            model.unpersist()
            raise
        finally:
            if keys is not None:
                keys.release()

    def unpersist(self) -> None:
        """Release the model, and the keys unless ratings or other models need them."""
        if not self._released and not is_stopped(self._keys.buckets.context):
            self._keys.release()
            for broadcast in self._broadcasts.values():
                broadcast.destroy()
        self._broadcasts.clear()
        self._released = True
        self.model.unpersist()

    def _live_keys(self) -> KeyTable:
        if self._released or is_stopped(self._keys.buckets.context):
            raise ModelReleasedError(
                "The keys of this model were released by unpersist(), or its SparkContext stopped; "
                "save() the model before that and load it."
            )
        return self._keys

    def _id(self, side: int, key: Any, *, unknown: bool = False) -> int:
        """Return the id of a key, or -1 for an unknown key if `unknown` keys are allowed."""
        try:
            checked = checked_key(key)
        except ValueError as error:
            raise SettingError(f"{ID_NAMES[side]} {error}.") from None
        (id_,) = self._ids_of(side, ID_NAMES[side], [checked])
        if id_ is not None:
            return id_
        if unknown:
            return -1
        raise _unknown(side, key)

    def _ids(self, side: int, name: str, keys: Any) -> list[int]:
        try:
            is_text = isinstance(keys, (str, bytes))
            checked = [checked_key(key) for key in ((None,) if is_text else keys)]
        except (TypeError, ValueError):
            raise SettingError(f"{name} must be a sequence of keys but got {keys!r}.") from None
        return [id_ for id_ in self._ids_of(side, name, checked) if id_ is not None]

    def _ids_of(self, side: int, name: str, keys: list[Key]) -> list[int | None]:
        """Return the ids of the keys in an argument, None for unknown keys."""
        table = self._live_keys()
        ids = table.ids_of(side, keys)
        for key, id_ in zip(keys, ids, strict=True):
            # "7" in place of 7 is a mistake by the caller, not an unknown key.
            if id_ is None and type(key) is not (kind := table.kinds[side]):
                kinds = "strings" if kind is str else "integers"
                raise SettingError(
                    f"{name}: {key!r} is not a {ID_NAMES[side]} key: those are {kinds}; pass one "
                    "of them."
                )
        return ids

    @contextmanager
    def _with_ids(self, seen: Any) -> Iterator[RDD[tuple[int, int, float]] | None]:
        """Yield the ratings in `seen` with ids in place of keys; they are read in the context."""
        if seen is None:
            yield None
            return
        prepare(seen, Columns())
        rows = seen if isinstance(seen, RDD) else key_rows(seen)
        task_reports = TaskReports(rows.context)
        try:
            pairs = rows.mapPartitionsWithIndex(partial(_users_and_products, task_reports))
            by_user = self._live_keys().with_ids(USERS, pairs)
            by_product = self._live_keys().with_ids(PRODUCTS, by_user.map(_swapped))
            yield by_product.map(_as_seen)
            for error in task_reports.take("error"):
                raise error
        finally:
            task_reports.close()

    def _candidates(self, side: int, candidates: Any) -> dict[str, Any]:
        if candidates is not None:
            candidates = self._ids(side, "candidates", candidates)
        return {"candidates": candidates}

    def _query_options(self, side: int, exclude: Any, candidates: Any) -> dict[str, Any]:
        excluded = {"exclude": self._ids(side, "exclude", exclude)}
        return excluded | self._candidates(side, candidates)

    def _with_keys(self, side: int, scores: list[tuple[int, float]]) -> list[tuple[Key, float]]:
        keys = self._live_keys().keys_of(side, [id_ for id_, _ in scores])
        return list(zip(keys, (score for _, score in scores), strict=True))

    def _all_keys(self, side: int) -> Broadcast[list[Key]]:
        if side not in self._broadcasts:
            keys = self._live_keys()
            self._broadcasts[side] = keys.buckets.context.broadcast(keys.all_keys(side))
        return self._broadcasts[side]


def ids_without_key(model: MatrixFactorizationModel, keys: KeyTable) -> str | None:
    """Describe an id of the model that has no key, or return None if all ids have one."""
    for side, (low, high) in enumerate(model.id_bounds()):
        count = int(keys.firsts[side][-1])
        if low < 0 or high >= count:
            return f"it knows {ID_NAMES[side]} id {high if low >= 0 else low}, they have {count}"
    return None


def _unknown(side: int, key: Key) -> UnknownIdError:
    return UnknownIdError(
        f"{ID_NAMES[side]} {key!r} not found in the model: it has no rating in the training data. "
        "Train with ratings of it."
    )


@contextmanager
def _errors_by_key(*keys: tuple[int, Key]) -> Iterator[None]:
    """Report an unknown id by its key."""
    try:
        yield
    except UnknownIdError as error:
        for side, key in keys:
            if str(error).startswith(f"{ID_NAMES[side]}Id"):
                raise _unknown(side, key) from None
        raise


def _is_rating(row: Any) -> bool:
    """Return whether `row` is two keys and a number that is finite in float32."""
    if not (isinstance(row, (tuple, list)) and len(row) == 3):
        return False
    try:
        finite = abs(float(row[2])) <= FLOAT32_MAX  # False for NaN
    except (TypeError, ValueError, OverflowError):
        return False
    return finite and is_key_pair(row[:2]) and is_key_pair(row[1:])


@spark_task
def _users_and_products(
    task_reports: TaskReports, partition: int, rows: Iterable[Any]
) -> Iterator[tuple[Any, Any]]:
    for number, row in enumerate(rows):
        if not _is_rating(row):
            error = RatingTypeError(
                f"excludeSeen holds {row!r} (partition {partition}, row {number}); pass ratings "
                "(user key, product key, rating)."
            )
            # Raised in a task, the error would be retried and wrapped in a Java traceback.
            task_reports.add("error", partition, error)
            return
        yield row[0], row[1]


def _as_seen(pair: tuple[int, int]) -> tuple[int, int, float]:
    product, user = pair
    return user, product, 1.0


def _swapped(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    first, second = pair
    return second, first


def _user_first(rating: Any) -> tuple[int, tuple[int, float]]:
    return rating.user, (rating.product, rating.rating)


def _product_first(pair: tuple[Key, tuple[int, float]]) -> tuple[int, tuple[Key, float]]:
    user, (product, rating) = pair
    return product, (user, rating)


def _as_keyed(pair: tuple[Key, tuple[Key, float]]) -> KeyedRating:
    product, (user, rating) = pair
    return KeyedRating(user, product, rating)


def _name_products(
    products: Broadcast[list[Key]], answers: Iterable[tuple[Key, Any]]
) -> Iterator[tuple[Key, tuple[KeyedRating, ...]]]:
    keys = products.value
    for user, ratings in answers:
        triples = ((user, keys[rating.product], rating.rating) for rating in ratings)
        yield user, tuple(starmap(KeyedRating, triples))


def _name_users(
    users: Broadcast[list[Key]], answers: Iterable[tuple[Key, Any]]
) -> Iterator[tuple[Key, tuple[KeyedRating, ...]]]:
    keys = users.value
    for product, ratings in answers:
        triples = ((keys[rating.user], product, rating.rating) for rating in ratings)
        yield product, tuple(starmap(KeyedRating, triples))
