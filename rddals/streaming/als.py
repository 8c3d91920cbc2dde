"""Matrix factorisation of streams: ``StreamingALS``."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from pyspark import SparkContext

from partitioners import HashPartitioner
from partitioners.checks import is_integer
from rddals.config import StreamSettings
from rddals.errors import RatingError, SettingError
from rddals.model.files import checked_location
from rddals.model.matrix import MatrixFactorizationModel
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source, usable_batches
from rddals.rdds.links import NoRatingsError
from rddals.rdds.placement import Placements
from rddals.rdds.task_reports import TaskReports
from rddals.streaming.batch import BatchLearned
from rddals.streaming.checkpoint import Checkpoint
from rddals.streaming.history import all_ratings
from rddals.streaming.levels import Levels
from rddals.streaming.model import StreamingModel
from rddals.streaming.state import StreamState
from rddals.streaming.train_method import TrainMethod

#: Settings that do not affect what is learned; a restored stream may change them.
MUTABLE = ("exchange", "bad_ratings")
#: Arguments whose setting has another name.
ARGUMENT_NAMES = {"bias_lambda": "biasLambda"}
#: Placement arguments. They are refused with a batch-trained model, which has a placement.
PLACEMENT = ("userPartitioner", "productPartitioner", "userBlocks", "productBlocks")


class StreamingALS:
    """Biased matrix factorisation, learned batch by batch.

    The model predicts ``mean + b_user + b_product + U_user . P_product`` [1]_. There are two ways
    to train it::

        model = StreamingALS.train(first)          # immutable models
        model = model.train(second)

        als = StreamingALS()                       # holds the latest model
        stream.foreachRDD(als.train)
        als.model.predict(user, product)

    Parameters
    ----------
    rank : int
        Length of a factor.
    iterations : int
        Number of passes over each batch.
    lambda_ : float, optional
        Weight of the penalty: for "sgd" in every rating, 0.05 by default; for "als" in every
        id's factor, 8 by default.
    gamma : float, optional
        Learning rate of "sgd"; 0.5 by default.
    blocks : int
        Number of blocks of each side; -1 uses the default of `rddals.ALS.train` for the first
        batch.
    seed : int, optional
        Seed of new products' factors; random by default.
    update : {"sgd", "als"}
        How a batch is learned. "sgd" moves the rows of its users and products along the gradient
        of its ratings, and stores no ratings. "als" solves these rows again from all their
        ratings so far, which it stores.
    biasLambda : pair of float, optional
        Weights of the penalty of "als" in every user's and every product's bias; (10, 2) by
        default.
    userPartitioner, productPartitioner, userBlocks, productBlocks
        As for `rddals.ALS.train`. Placements that depend on the ratings use the first batch.
    exchange : {"auto", "shuffle", "broadcast", "join"}
        How rows reach the blocks that need them; "auto" chooses for each batch.
    badRatings : {"raise", "skip"}
        Whether ratings that are not finite or have an invalid id raise an error, or are skipped
        and counted.
    checkpointLocation : str, optional
        A directory on any file system that Spark supports. The state is saved there after every
        batch. A stream that was killed resumes with the model of the last saved batch and its
        placement; the placement arguments are then ignored.
    userCol, itemCol, ratingCol : str, optional
        DataFrame columns, as for `rddals.ALS.train`.

    Attributes
    ----------
    model : StreamingModel or None
        The latest model; None before the first rating. It may be set, for example to an earlier
        model or to one that continues a batch-trained model.
    learned : BatchLearned or None
        Result of this object's last batch, with or without ratings; None before the first.

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

    @TrainMethod
    def train(
        cls: Any,
        ratings: Any,
        model: StreamingModel | MatrixFactorizationModel | None = None,
        **settings: Any,
    ) -> Any:
        """Return a model that has learned one batch of ratings.

        Parameters
        ----------
        ratings : RDD or DataFrame
            As for `rddals.ALS.train`. Several ratings of a product by the same user are separate
            observations.
        model : StreamingModel or MatrixFactorizationModel, optional
            Model to continue from; it stays unchanged. A `MatrixFactorizationModel` must be
            trained on explicit ratings; the stream starts with its predictions.
        **settings
            Arguments of the class. A `StreamingModel` has its own and permits none; a
            `MatrixFactorizationModel` has its own rank and placement.

        Returns
        -------
        StreamingModel

        Raises
        ------
        SettingError
            If a setting is out of range.
        RatingError, RatingTypeError
            If there are no ratings, or one is invalid.
        InconsistentRatingsError
            If `ratings` changes between computations.
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
                f"{', '.join(sorted(settings))} cannot be passed with a StreamingModel, which has "
                "its own settings; omit them, or omit the model."
            )
        return model.train(ratings)

    @classmethod
    def _from_batch(
        cls, model: MatrixFactorizationModel, settings: dict[str, Any]
    ) -> StreamingModel:
        for name in ("rank", "blocks", *PLACEMENT):
            if name in settings:
                raise SettingError(
                    f"{name} cannot be passed with a MatrixFactorizationModel, which sets it; "
                    "omit it."
                )
        if settings.get("checkpointLocation") is not None:
            raise SettingError(
                "checkpointLocation: only a StreamingALS object saves its state after every batch; "
                "create one with it and set its model to StreamingALS.train(ratings, model)."
            )
        if model._settings is not None and model._settings.objective.implicit:
            raise SettingError(
                "The model was trained on implicit feedback, but a stream can only continue a "
                "model of explicit ratings; train one with ALS.train."
            )
        als = cls(rank=model.rank, **settings)
        if als._settings.update == "als":
            raise SettingError(
                "update='als' needs all past ratings, which a batch-trained model does not have; "
                "start with the ratings: StreamingALS.train(ratings, update='als')."
            )
        state = StreamState.of_factors(model.factors.tables, model.rank)
        return StreamingModel(state, als._settings, als._columns, None)

    def _train(self, ratings: Any) -> None:
        """Learn the next batch and set `model` to the new model.

        Parameters
        ----------
        ratings : RDD or DataFrame
            As for `rddals.ALS.train`. A batch without ratings teaches nothing.
        """
        self._learn((ratings,), self._batch_id)

    def updateBatch(self, ratings: Any, batchId: int) -> list[BatchLearned]:
        """Learn a numbered batch, for ``writeStream.foreachBatch``.

        After a crash Spark repeats the last batch under the same number; it is not learned again
        if the checkpoint already has it. Spark may also merge two batches of files into one.

        Parameters
        ----------
        ratings : DataFrame or RDD, or a list or an iterator of them
            Several are learned one after another, each as a batch, and saved together.
        batchId : int
            Number of the batch.

        Returns
        -------
        list of BatchLearned
            One result for each batch in `ratings`; empty if the checkpoint already has the number.

        Raises
        ------
        SettingError
            If the number is invalid, or lower than that of the last batch.
        RddalsError
            As for `train`.
        """
        if not is_integer(batchId) or batchId < 0:
            raise SettingError(
                f"batchId must be a nonnegative integer but got {batchId!r}. Pass foreachBatch's."
            )
        if self._batch_id is not None and batchId < self._batch_id:
            raise SettingError(
                f"Batch {batchId} arrived after batch {self._batch_id} was already learned: the "
                "query was restarted without its own checkpoint, and the model was not. Restore "
                "the query's checkpoint, or start both again."
            )
        if batchId == self._batch_id:
            return []
        several = isinstance(ratings, (list, tuple, Iterator))
        return self._learn(ratings if several else (ratings,), batchId)

    def _learn(self, batches: Iterable[Any], batch_id: int | None) -> list[BatchLearned]:
        """Learn batches one after another and save the state once; change nothing on errors."""
        model, results = self.model, []
        for ratings in batches:
            updated = (model or self._empty_model(ratings)).train(ratings)
            assert updated.learned is not None
            results.append(updated.learned)
            model = updated if updated.ratings else None
        if model is not None and self._checkpoint is not None:
            self._checkpoint.save(model._usable_state(), model.settings, batch_id)
        self.model, self._batch_id = model, batch_id
        if results:
            self.learned = results[-1]
        return results

    def _empty_model(self, ratings: Any) -> StreamingModel:
        """Return a model without rows, whose placements are fitted to the valid ratings."""
        source = rating_source(ratings, self._columns)
        with closing(TaskReports(source.context)) as task_reports:
            if self._settings.bad_ratings == "skip":
                source = source.mapPartitionsWithIndex(partial(usable_batches, task_reports))
            try:
                users, products = self._placements.partitioners(source)
            except NoRatingsError:
                # Nothing will be learned from this batch, so any placement will do.
                users = products = HashPartitioner(1)
        history = None
        if self._settings.update == "als":
            history = (Levels(users, (), all_ratings), Levels(products, (), all_ratings))
        state = StreamState((Levels(users), Levels(products)), history=history)
        return StreamingModel(state, self._settings, self._columns, None)

    def _restore(self, location: Any, seeded: bool) -> None:
        """Resume from the state saved at `location`, if any, and save there from now on."""
        sc = SparkContext._active_spark_context
        if sc is None:
            raise SettingError(
                f"checkpointLocation={location!r} is read with Spark; start a SparkContext first."
            )
        sc = checked_location(sc, location)
        self._checkpoint = Checkpoint(sc, location)
        saved = self._checkpoint.load()
        if saved is None:
            return
        state, settings, batch_id = saved
        if not seeded:
            self._settings = replace(self._settings, seed=settings.seed)
        requested, previous = self._settings.document(), settings.document()
        differing = [
            name
            for name in previous
            if name not in MUTABLE and previous[name] != requested.get(name)
        ]
        if differing:
            for levels in state.all_levels:
                levels.discard()
            values = ", ".join(
                f"{ARGUMENT_NAMES.get(name, name)}={previous[name]!r}" for name in differing
            )
            raise SettingError(
                f"The stream at {location} was started with {values}; pass the same settings, or "
                "start a new stream at another location."
            )
        self.model = StreamingModel(state, self._settings, self._columns, None)
        self._batch_id = batch_id
