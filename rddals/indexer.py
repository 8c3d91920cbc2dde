"""Integer ids for users and products whose keys are strings or 64-bit integers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyspark import RDD

from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.errors import ModelReleasedError, SettingError
from rddals.indexing.build import index_source
from rddals.indexing.key_table import KeyTable
from rddals.indexing.model import KeyedModel, KeyedRating
from rddals.indexing.translation import ids_without_key
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
    """Assign an id to every user key and product key of the ratings.

    The keys of a side are all strings or all integers of up to 64 bits. The ids depend only on
    the set of keys.

    Parameters
    ----------
    ratings : RDD or DataFrame
        An RDD of ``(user key, product key, rating)``, or a DataFrame. It is read once, in this
        call.
    userCol, itemCol, ratingCol : str, optional
        Columns of the DataFrame, as for `rddals.ALS.train`.

    Returns
    -------
    IndexedRatings
        The ratings with ids, ready for training.

    Raises
    ------
    RatingTypeError, RatingError
        If `ratings` is empty or contains something other than ratings with keys.
    SettingError
        If the DataFrame does not have the given columns.
    """
    columns = Columns.checked(userCol, itemCol, ratingCol)
    prepare(ratings, columns)
    source = ratings if isinstance(ratings, RDD) else keys_of(ratings, columns)
    return IndexedRatings(*index_source(source))


class IndexedRatings:
    """Ratings with integer ids in place of keys, created by `index_ratings`.

    Attributes
    ----------
    keys : KeyTable
        The keys of both sides, which translate between keys and ids.
    """

    def __init__(
        self, ratings: RDD[RatingBlock], keys: KeyTable, shuffles: Iterable[Shuffle]
    ) -> None:
        self._ratings = ratings
        self.keys = keys.retain()
        self._shuffles = tuple(shuffles)
        self._released = False

    @property
    def ratings(self) -> RDD[RatingBlock]:
        """Ratings with ids for `rddals.ALS.train`: column batches read from shuffle files."""
        self._check_alive()
        return self._ratings

    @property
    def users(self) -> int:
        """Number of users."""
        return int(self.keys.firsts[USERS][-1])

    @property
    def products(self) -> int:
        """Number of products."""
        return int(self.keys.firsts[PRODUCTS][-1])

    def keyed(self, model: MatrixFactorizationModel) -> KeyedModel:
        """Return a `KeyedModel` that answers queries by key.

        Parameters
        ----------
        model : MatrixFactorizationModel
            A model trained on these ratings.

        Returns
        -------
        KeyedModel

        Raises
        ------
        SettingError
            If the model has ids that these ratings do not have.
        """
        self._check_alive()
        if not isinstance(model, MatrixFactorizationModel):
            raise SettingError(
                f"model must be a MatrixFactorizationModel of rddals but got {model!r}."
            )
        if unknown := ids_without_key(model, self.keys):
            raise SettingError(
                f"The model was trained on other ratings: {unknown}. Pass a model that was trained "
                "on these indexed ratings."
            )
        return KeyedModel(model, self.keys)

    def _check_alive(self) -> None:
        if self._released or is_stopped(self._ratings.context):
            raise ModelReleasedError(
                "These ratings were released by unpersist(), or their SparkContext stopped; "
                "index them again."
            )

    def unpersist(self) -> None:
        """Release the ratings. Keys are released when no `KeyedModel` needs them."""
        if not self._released and not is_stopped(self._ratings.context):
            self.keys.release()
            for shuffle in self._shuffles:
                shuffle.release()
        self._released = True
