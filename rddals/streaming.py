"""The front door to streams: ``StreamingALS``."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

from pyspark import RDD

from partitioners import Partitioner
from rddals.config import StreamSettings
from rddals.errors import RatingError, SettingError
from rddals.learning import learn
from rddals.model import MatrixFactorizationModel
from rddals.placement import Placements
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source, usable_batches
from rddals.rdds.levels import Levels
from rddals.rdds.links import NoRatingsError
from rddals.rdds.spark import ReportBook, head
from rddals.rdds.stream_state import StreamState
from rddals.streaming_model import StreamingModel

__all__ = ["StreamingALS"]

#: Settings that say where ids live, which a model has said already.
PLACEMENT = ("userPartitioner", "productPartitioner", "userBlocks", "productBlocks")


class _Train:
    """``train``: of the class it makes models, of an object it goes on with its own."""

    def __init__(self, of_class: Callable[..., Any]) -> None:
        self._of_class = of_class
        self.__doc__ = of_class.__doc__

    def __get__(self, als: StreamingALS | None, owner: type[StreamingALS]) -> Callable[..., Any]:
        if als is None:
            return MethodType(self._of_class, owner)

        # foreachRDD of a DStream counts arguments, and `self` of a bound method as one.
        def train(ratings: Any) -> None:
            als._train(ratings)

        train.__doc__ = als._train.__doc__
        return train


class StreamingALS:
    """A biased matrix factorisation, learned batch by batch.

    The model predicts ``mean + b_user + b_product + U_user . P_product`` [1]_. There are two ways
    to learn it::

        model = StreamingALS.train(first)          # models that never change
        model = model.train(second)

        als = StreamingALS()                       # one that does
        stream.foreachRDD(als.train)
        als.model.predict(user, product)

    Parameters
    ----------
    rank : int
        Length of a factor.
    iterations : int
        How often each batch is gone through: products, then users.
    lambda_ : float
        Weight of the penalty.
    gamma : float
        Learning rate.
    blocks : int
        Blocks of each side; -1 takes what `rddals.ALS.train` would for the first batch.
    seed : int, optional
        For new products' factors; drawn if left out.
    userPartitioner, productPartitioner, userBlocks, productBlocks
        As for `rddals.ALS.train`; fitted to the first batch, where they are fitted.
    exchange : {"auto", "shuffle", "broadcast", "join"}
        How rows reach the blocks that need them, batch by batch.
    badRatings : {"raise", "skip"}
        What to do about what cannot be learned from: a rating that is not finite, an id that is
        none. What is skipped is counted.
    userCol, itemCol, ratingCol : str, optional
        Columns of DataFrames, as for `rddals.ALS.train`.

    Attributes
    ----------
    model : StreamingModel or None
        The latest; None before the first rating.

    References
    ----------
    .. [1] Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems",
       Computer 42(8), 2009.
    """

    def __init__(
        self,
        rank: int = 10,
        iterations: int = 1,
        lambda_: float = 0.05,
        gamma: float = 0.5,
        blocks: int = -1,
        seed: int | None = None,
        *,
        userPartitioner: Any = None,
        productPartitioner: Any = None,
        userBlocks: int = -1,
        productBlocks: int = -1,
        exchange: str = "auto",
        badRatings: str = "raise",
        userCol: str | None = None,
        itemCol: str | None = None,
        ratingCol: str | None = None,
    ) -> None:
        self.model: StreamingModel | None = None
        self._settings = StreamSettings.checked(
            rank=rank,
            iterations=iterations,
            lambda_=lambda_,
            gamma=gamma,
            seed=secrets.randbits(63) if seed is None else seed,
            exchange=exchange,
            bad_ratings=badRatings,
        )
        self._placements = Placements(
            blocks, userBlocks, productBlocks, userPartitioner, productPartitioner
        )
        self._columns = Columns.checked(userCol, itemCol, ratingCol)

    @_Train
    def train(
        cls: Any,
        ratings: Any,
        model: StreamingModel | MatrixFactorizationModel | None = None,
        **settings: Any,
    ) -> Any:
        """A model that has learned from one batch of ratings.

        Parameters
        ----------
        ratings : RDD or DataFrame
            As `rddals.ALS.train` takes them. Several ratings of a product by a user are
            observations of their own.
        model : StreamingModel or MatrixFactorizationModel, optional
            What to go on from. One that was trained on batches, on explicit ratings, predicts the
            same when the stream begins; it stays as it is.
        **settings
            As the class takes them. Not with a `StreamingModel`, which has its own; not `rank` or
            placements with a `MatrixFactorizationModel`.

        Returns
        -------
        StreamingModel

        Raises
        ------
        SettingError
            If a setting is out of its range.
        RatingError, RatingTypeError
            If there is no rating, or something that cannot be learned from.
        InconsistentRatingsError
            If `ratings` changes from one computation to the next.
        OverflowingRatingsError
            If ratings are so large that rows are not finite.
        """
        if model is None:
            als = cls(**settings)
            als._train(ratings)
            if als.model is None:
                raise RatingError("RDD is empty: there is nothing to train on.")
            return als.model
        if isinstance(model, MatrixFactorizationModel):
            return cls._from_batch(model, settings).train(ratings)
        if not isinstance(model, StreamingModel):
            raise SettingError(
                f"model must be a StreamingModel or a MatrixFactorizationModel of rddals but got "
                f"{model!r}; pass settings by name, such as rank=10."
            )
        if settings:
            raise SettingError(
                f"{', '.join(sorted(settings))}: a model keeps the settings it was made with; "
                "leave them out, or leave out the model."
            )
        return model.train(ratings)

    @classmethod
    def _from_batch(
        cls, model: MatrixFactorizationModel, settings: dict[str, Any]
    ) -> StreamingModel:
        for name in ("rank", "blocks", *PLACEMENT):
            if name in settings:
                raise SettingError(
                    f"{name}: a stream keeps that of the model it goes on from; leave it out."
                )
        if model._settings is not None and model._settings.objective.implicit:
            raise SettingError(
                "The model was trained on implicit feedback, which says how sure a preference is "
                "and not what the rating was; a stream goes on from explicit ratings."
            )
        als = cls(rank=model.rank, **settings)
        return StreamingModel.from_batch(model, als._settings, als._columns)

    def _train(self, ratings: Any) -> None:
        """Learn from the next batch; `model` is the new model then.

        Parameters
        ----------
        ratings : RDD or DataFrame
            As `rddals.ALS.train` takes them. If there is none, nothing is learned.
        """
        if self.model is not None:
            self.model = self.model.train(ratings)
            return
        source = rating_source(ratings, self._columns)
        if not head(source):
            return
        try:
            users, products = self._partitioners(source)
        except NoRatingsError:
            return
        state = StreamState((Levels(users), Levels(products)))
        state, learned = learn(source, state, self._settings)
        if state.ratings:
            self.model = StreamingModel(state, self._settings, self._columns, learned)

    def _partitioners(self, source: RDD[Any]) -> tuple[Partitioner, Partitioner]:
        """Where ids live, fitted to what can be learned from."""
        book = ReportBook(source.context)
        try:
            if self._settings.bad_ratings == "skip":
                source = source.mapPartitionsWithIndex(partial(usable_batches, book))
            return self._placements.partitioners(source)
        finally:
            book.close()
