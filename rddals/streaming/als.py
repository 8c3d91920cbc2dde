"""The front door to streams: ``StreamingALS``."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from types import MethodType
from typing import Any

from pyspark import RDD, SparkContext
from pyspark.sql import DataFrame

from partitioners import Partitioner
from rddals.config import StreamSettings
from rddals.errors import RatingError, SettingError
from rddals.model.matrix import MatrixFactorizationModel, check_location
from rddals.rdds.context import head
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source, usable_batches
from rddals.rdds.links import NoRatingsError
from rddals.rdds.placement import Placements
from rddals.rdds.task_reports import TaskReports
from rddals.streaming.batch import BatchLearned, learn
from rddals.streaming.checkpoint import Checkpoint
from rddals.streaming.file_source import split_merged_batch
from rddals.streaming.history import all_ratings
from rddals.streaming.levels import Levels
from rddals.streaming.model import StreamingModel
from rddals.streaming.state import StreamState

__all__ = ["StreamingALS"]

#: Settings that do not tell what is learned.
MUTABLE = ("exchange", "bad_ratings")
#: Settings that callers spell another way.
SPELLING = {"bias_lambda": "biasLambda"}
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
        How often each batch is gone through.
    lambda_ : float, optional
        Weight of the penalty: for "sgd" in every rating, 0.05 if left out; for "als" in every
        id's factor, 8 if left out.
    gamma : float, optional
        Learning rate of "sgd"; 0.5 if left out.
    blocks : int
        Blocks of each side; -1 takes what `rddals.ALS.train` would for the first batch.
    seed : int, optional
        For new products' factors; drawn if left out.
    update : {"sgd", "als"}
        How a batch is learned. "sgd" moves the rows of its users and products along the gradient
        of its ratings, and keeps no rating. "als" solves these rows anew from all ratings of
        theirs so far, which it keeps.
    biasLambda : pair of float, optional
        Weights of the penalty of "als" in every user's and every product's bias; (10, 2) if left
        out.
    userPartitioner, productPartitioner, userBlocks, productBlocks
        As for `rddals.ALS.train`; fitted to the first batch, where they are fitted.
    exchange : {"auto", "shuffle", "broadcast", "join"}
        How rows reach the blocks that need them, batch by batch.
    badRatings : {"raise", "skip"}
        What to do about what cannot be learned from: a rating that is not finite, an id that is
        none. What is skipped is counted.
    checkpointLocation : str, optional
        A directory of any file system that Spark knows, to which the state is saved after every
        batch. A stream that was killed goes on from there: the model is what it was after the
        last batch that was saved, and ids live where they did, whatever placement is asked for.
    userCol, itemCol, ratingCol : str, optional
        Columns of DataFrames, as for `rddals.ALS.train`.

    Attributes
    ----------
    model : StreamingModel or None
        The latest; None before the first rating. It may be set, to a model of before or to one
        that goes on from a batch training.
    learned : BatchLearned or None
        What became of the last batch of this object, with or without a rating; None before it.

    References
    ----------
    .. [1] Koren, Bell and Volinsky, "Matrix factorization techniques for recommender systems",
       Computer 42(8), 2009.
    """

    def __init__(
        self,
        rank: int = 10,
        iterations: int = 1,
        lambda_: float | None = None,
        gamma: float | None = None,
        blocks: int = -1,
        seed: int | None = None,
        *,
        update: str = "sgd",
        biasLambda: tuple[float, float] | None = None,
        userPartitioner: Any = None,
        productPartitioner: Any = None,
        userBlocks: int = -1,
        productBlocks: int = -1,
        exchange: str = "auto",
        badRatings: str = "raise",
        checkpointLocation: str | None = None,
        userCol: str | None = None,
        itemCol: str | None = None,
        ratingCol: str | None = None,
    ) -> None:
        self.model: StreamingModel | None = None
        self.learned: BatchLearned | None = None
        self._settings = StreamSettings.checked(
            rank=rank,
            iterations=iterations,
            lambda_=lambda_,
            gamma=gamma,
            bias_lambda=biasLambda,
            update=update,
            seed=secrets.randbits(63) if seed is None else seed,
            exchange=exchange,
            bad_ratings=badRatings,
        )
        self._placements = Placements(
            blocks, userBlocks, productBlocks, userPartitioner, productPartitioner
        )
        self._columns = Columns.checked(userCol, itemCol, ratingCol)
        self._checkpoint: Checkpoint | None = None
        self._batch_id: int | None = None
        if checkpointLocation is not None:
            self._restore(checkpointLocation, seed is not None)

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
        if settings.get("checkpointLocation") is not None:
            raise SettingError(
                "checkpointLocation: a model is not saved batch by batch, a StreamingALS is; make "
                "one with it and set its model to StreamingALS.train(ratings, model)."
            )
        if model._settings is not None and model._settings.objective.implicit:
            raise SettingError(
                "The model was trained on implicit feedback, which says how sure a preference is "
                "and not what the rating was; a stream goes on from explicit ratings."
            )
        als = cls(rank=model.rank, **settings)
        if als._settings.update == "als":
            raise SettingError(
                "update='als' learns from all ratings, which a batch-trained model does not have; "
                "begin with these: StreamingALS.train(ratings, update='als')."
            )
        state = StreamState.of_factors(model._factors(), model.rank)
        return StreamingModel(state, als._settings, als._columns, None)

    def _train(self, ratings: Any) -> None:
        """Learn from the next batch; `model` is the new model then.

        Parameters
        ----------
        ratings : RDD or DataFrame
            As `rddals.ALS.train` takes them. If there is none, nothing is learned.
        """
        self._learn((ratings,), None)

    def updateBatch(self, ratings: Any, batchId: int) -> None:
        """Learn from a batch that has a number, for ``writeStream.foreachBatch``.

        After a crash Spark repeats the last batch, under the same number. If the checkpoint has it
        already, nothing is learned from it again. A batch that Spark has made of files that it
        found one after another, because it was killed in between, is learned as several.

        Parameters
        ----------
        ratings : DataFrame or RDD, or a list or an iterator of them
            Several are learned one after another, each as a batch, and are saved together.
        batchId : int

        Raises
        ------
        SettingError
            If a batch with a higher number was learned before.
        RddalsError
            As `train` does.
        """
        if self._batch_id is not None and batchId < self._batch_id:
            raise SettingError(
                f"Batch {batchId} comes after batch {self._batch_id}: the query has begun anew, "
                "without its own checkpoint, and the model has not. Restore the query's, or begin "
                "both anew."
            )
        if batchId != self._batch_id:
            with _batches(ratings, batchId) as batches:
                self._learn(batches, batchId)

    def _learn(self, batches: Iterable[Any], batch_id: int | None) -> None:
        model = self.model
        for ratings in batches:
            model = self._next_model(model, ratings)
        if batch_id is None:
            batch_id = self._batch_id
        if model is not None and self._checkpoint is not None:
            self._checkpoint.save(model._usable_state(), model._settings, batch_id)
        self.model, self._batch_id = model, batch_id

    def _next_model(self, model: StreamingModel | None, ratings: Any) -> StreamingModel | None:
        """The model after a batch; None as long as there was no rating."""
        if model is not None:
            model = model.train(ratings)
            self.learned = model.learned
            return model
        self.learned = BatchLearned(1, 0, 0)
        source = rating_source(ratings, self._columns)
        placed = self._partitioners(source) if head(source) else None
        if placed is None:
            return None
        users, products = placed
        history = None
        if self._settings.update == "als":
            history = (Levels(users, (), all_ratings), Levels(products, (), all_ratings))
        state = StreamState((Levels(users), Levels(products)), history=history)
        state, self.learned = learn(source, state, self._settings)
        if not state.ratings:
            return None
        return StreamingModel(state, self._settings, self._columns, self.learned)

    def _partitioners(self, source: RDD[Any]) -> tuple[Partitioner, Partitioner] | None:
        """Where ids live, fitted to what can be learned from; None if nothing can."""
        task_reports = TaskReports(source.context)
        try:
            if self._settings.bad_ratings == "skip":
                source = source.mapPartitionsWithIndex(partial(usable_batches, task_reports))
            return self._placements.partitioners(source)
        except NoRatingsError:
            self.learned = BatchLearned(1, 0, sum(task_reports.take("skipped")))
            return None
        finally:
            task_reports.close()

    def _restore(self, location: Any, seeded: bool) -> None:
        """Go on from what is saved at `location`, and save there from now on."""
        sc = SparkContext._active_spark_context
        if sc is None:
            raise SettingError(
                f"checkpointLocation={location!r} is read with Spark; start a SparkContext first."
            )
        check_location(sc, location)
        self._checkpoint = Checkpoint(sc, location)
        saved = self._checkpoint.load()
        if saved is None:
            return
        if not seeded:
            self._settings = replace(self._settings, seed=saved.settings.seed)
        asked, had = self._settings.document(), saved.settings.document()
        differing = [name for name in had if name not in MUTABLE and had[name] != asked.get(name)]
        if differing:
            for levels in saved.state.all_levels:
                levels.retain().release()
            was = ", ".join(f"{SPELLING.get(name, name)}={had[name]!r}" for name in differing)
            raise SettingError(
                f"The stream at {location} was begun with {was}; go on with the same, or start "
                "anew at another place."
            )
        self.model = StreamingModel(saved.state, self._settings, self._columns, None)
        self._batch_id = saved.batch_id


def _batches(ratings: Any, batch_id: int) -> AbstractContextManager[Iterable[Any]]:
    """The batches that are to be learned under one number."""
    if isinstance(ratings, DataFrame):
        return split_merged_batch(ratings, batch_id)
    several = isinstance(ratings, (list, tuple, Iterator))
    return nullcontext(ratings if several else (ratings,))
