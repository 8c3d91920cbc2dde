"""Ids for users and products that have names: strings, or integers beyond 32 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyspark import RDD

from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.errors import ModelReleasedError, SettingError
from rddals.indexing.build import index_source
from rddals.indexing.key_table import KeyTable
from rddals.indexing.model import KeyedModel, KeyedRating, ids_without_key
from rddals.model.matrix import MatrixFactorizationModel
from rddals.rdds.context import is_stopped
from rddals.rdds.frames import Columns, keys_of
from rddals.rdds.ingest import prepare
from rddals.rdds.shuffles import Shuffle

__all__ = ["IndexedRatings", "KeyedModel", "KeyedRating", "index_ratings"]


def index_ratings(
    ratings: Any,
    *,
    userCol: str | None = None,
    itemCol: str | None = None,
    ratingCol: str | None = None,
) -> IndexedRatings:
    """Give every user and product of some ratings an id that a model can be trained on.

    The keys of a side are all strings or all integers of up to 64 bits. Ids follow from the set of
    keys alone.

    Parameters
    ----------
    ratings : RDD or DataFrame
        An RDD of (user key, product key, rating), or a DataFrame; it is read once, here.
    userCol, itemCol, ratingCol : str, optional
        Columns of the DataFrame, as for `rddals.ALS.train`.

    Returns
    -------
    IndexedRatings

    Raises
    ------
    RatingTypeError, RatingError
        If `ratings` holds something else, or nothing.
    SettingError
        If the DataFrame has no such columns.
    """
    columns = Columns.checked(userCol, itemCol, ratingCol)
    prepare(ratings, columns)
    indexed = index_source(ratings if isinstance(ratings, RDD) else keys_of(ratings, columns))
    return IndexedRatings(indexed.ratings, indexed.keys, indexed.shuffles)


class IndexedRatings:
    """Ratings with ids for keys, to train on."""

    def __init__(
        self, ratings: RDD[RatingBlock], keys: KeyTable, shuffles: Iterable[Shuffle]
    ) -> None:
        self._ratings = ratings
        self._keys = keys.retain()
        self._shuffles = tuple(shuffles)
        self._released = False

    @property
    def ratings(self) -> RDD[RatingBlock]:
        """What `rddals.ALS.train` takes: batches in columns, read from shuffle files."""
        self._check_alive()
        return self._ratings

    @property
    def users(self) -> int:
        """How many users there are."""
        return int(self._keys.firsts[USERS][-1])

    @property
    def products(self) -> int:
        """How many products there are."""
        return int(self._keys.firsts[PRODUCTS][-1])

    def keyed(self, model: MatrixFactorizationModel) -> KeyedModel:
        """A model that was trained on these ratings, asked and answering by keys.

        Raises
        ------
        SettingError
            If it has ids that these ratings have not.
        """
        self._check_alive()
        if not isinstance(model, MatrixFactorizationModel):
            raise SettingError(
                f"model must be a MatrixFactorizationModel of rddals but got {model!r}."
            )
        if unknown := ids_without_key(model, self._keys):
            raise SettingError(
                f"The model was trained on other ratings: {unknown}; pass one that was trained on "
                "the ratings of this index."
            )
        return KeyedModel(model, self._keys)

    def _check_alive(self) -> None:
        if self._released or is_stopped(self._ratings.context):
            raise ModelReleasedError(
                "These ratings are gone, with unpersist() or their SparkContext; index them again."
            )

    def unpersist(self) -> None:
        """Free the ratings; the keys stay as long as a keyed model needs them."""
        if not self._released and not is_stopped(self._ratings.context):
            self._keys.release()
            for shuffle in self._shuffles:
                shuffle.release()
        self._released = True
