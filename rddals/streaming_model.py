"""The model of a stream: it predicts for everybody, and learns from the next batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.mllib.recommendation import Rating

from rddals.asked import checked_id
from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import INT32_MAX, INT32_MIN
from rddals.config import StreamSettings
from rddals.errors import ModelReleasedError
from rddals.kernels.topk import pair_scores
from rddals.learning import BatchLearned, StreamState, learn
from rddals.model import MatrixFactorizationModel
from rddals.rdds.factors import FactorTable, is_pair, predict_pairs
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.levels import Levels
from rddals.rdds.links import PRODUCTS, USERS
from rddals.rdds.spark import cut_lineage, head, is_stopped, spared, with_shuffle_serializer

__all__ = ["StreamingModel"]

SIDES = ("user", "product")


class StreamingModel:
    """A biased matrix factorisation that learns batch by batch.

    It predicts ``mean + b_user + b_product + U_user . P_product``. Made by
    `rddals.StreamingALS.train`; it never changes, `train` gives a new one. What both have in
    common they share, and what no model needs any more is freed.

    Attributes
    ----------
    rank : int
        Length of a factor.
    mean : float
        The mean of all ratings so far.
    ratings, users, products : int
        How many there were, and how many ids have a row.
    batches : int
        Batches so far, empty ones included.
    learned : BatchLearned
        What became of the last batch.
    seed : int
        What the products' starting factors are drawn with.
    """

    def __init__(
        self, state: StreamState, settings: StreamSettings, columns: Columns, learned: BatchLearned
    ) -> None:
        self.learned = learned
        self._settings = settings
        self._columns = columns
        self._state = state
        for side in state.sides:
            side.hold()
        # Whoever drops the last reference to a model frees what it alone has held.
        self._finalizer = weakref.finalize(self, _let_go, state.sides)
        self._finalizer.atexit = False  # Spark is gone by then, and all it holds

    @property
    def rank(self) -> int:
        """Length of a factor."""
        return self._settings.rank

    @property
    def seed(self) -> int:
        """What the products' starting factors are drawn with."""
        return self._settings.seed

    @property
    def mean(self) -> float:
        """The mean of all ratings so far."""
        return self._state.mean

    @property
    def ratings(self) -> int:
        """How many ratings there were."""
        return self._state.ratings

    @property
    def users(self) -> int:
        """How many users have a row."""
        return self._state.ids[USERS]

    @property
    def products(self) -> int:
        """How many products have a row."""
        return self._state.ids[PRODUCTS]

    @property
    def batches(self) -> int:
        """Batches so far."""
        return self._state.batches

    def train(self, ratings: Any) -> StreamingModel:
        """A new model, which has learned from a batch of ratings too; this one stays as it is.

        Parameters
        ----------
        ratings : RDD or DataFrame
            As `rddals.StreamingALS.train` takes them. If there is none, the model learns nothing.

        Raises
        ------
        RddalsError
            As `rddals.StreamingALS.train` does.
        """
        state = self._usable_state()
        grown, learned = learn(rating_source(ratings, self._columns), state, self._settings)
        return StreamingModel(grown, self._settings, self._columns, learned)

    # ------------------------------------------------------------------ predictions

    def predict(self, user: int, product: int) -> float:
        """The predicted rating of a product by a user; what is not known of them counts as zero."""
        tables = self._tables()
        rows = [
            self._row(table, side, id_)
            for side, table, id_ in zip((USERS, PRODUCTS), tables, (user, product), strict=True)
        ]
        return self.mean + float(pair_scores(*rows))

    def predictAll(self, user_product: RDD[tuple[int, int]]) -> RDD[Rating]:
        """Predicted ratings of ``(user, product)`` pairs, of every one, in no particular order."""
        assert isinstance(user_product, RDD), "user_product should be RDD of (user, product)"
        tables = self._tables()
        assert all(map(is_pair, head(user_product))), (
            "user_product should be RDD of (user, product)"
        )
        strangers = (_stranger(USERS, self.rank), _stranger(PRODUCTS, self.rank))
        self._lend()
        predicted = predict_pairs(*tables, user_product, strangers)
        return predicted.flatMap(partial(_as_ratings, self.mean))

    def toMatrixFactorizationModel(self) -> MatrixFactorizationModel:
        """A model of its own for everything that takes one, of rank `rank` + 2.

        A user's factor is ``(U, b_user, 1)`` and a product's ``(P, 1, b_product + mean)``: their
        dot product is this model's prediction.
        """
        tables = []
        for side, table in enumerate(self._tables()):
            blocks = table.blocks
            if side == PRODUCTS:
                blocks = with_shuffle_serializer(
                    blocks.mapPartitions(partial(_with_mean, self.mean), preservesPartitioning=True)
                )
            cut_lineage(blocks)
            tables.append(FactorTable(blocks, table.partitioner))
        return MatrixFactorizationModel(self.rank + 2, *tables)

    def unpersist(self) -> None:
        """Free what this model alone holds; it is of no use then. Other models keep theirs."""
        self._finalizer()

    # ------------------------------------------------------------------ inside

    def _usable_state(self) -> StreamState:
        if not self._finalizer.alive:
            raise ModelReleasedError(
                "unpersist() has freed this model; go on from the one that learned last."
            )
        for side in self._state.sides:
            for rdd in side.rdds[:1]:
                if is_stopped(rdd.context):
                    raise ModelReleasedError(
                        "The SparkContext of this model is stopped; save() a model before, and "
                        "load it in a running one."
                    )
        return self._state

    def _tables(self) -> tuple[FactorTable, FactorTable]:
        """Both sides as views, laid out as `toMatrixFactorizationModel` says, without the mean."""
        users, products = self._usable_state().sides
        return _view(users, USERS), _view(products, PRODUCTS)

    def _row(self, table: FactorTable, side: int, id_: Any) -> NDArray[np.float32]:
        asked = checked_id(SIDES[side], id_)
        row = table.row(asked) if INT32_MIN <= asked <= INT32_MAX else None
        return _stranger(side, self.rank) if row is None else row

    def _lend(self) -> None:
        """Leave it to Spark to free what this model holds: what it gave may be computed later."""
        for side in self._state.sides:
            for level in side.levels:
                level.lend()


def _let_go(sides: Iterable[Levels]) -> None:
    for side in sides:
        if side.levels and not is_stopped(side.levels[0].blocks.context):
            side.let_go()


def _view(levels: Levels, side: int) -> FactorTable:
    table = levels.table()
    blocks = with_shuffle_serializer(
        table.blocks.mapPartitions(partial(_with_one, side), preservesPartitioning=True)
    )
    return FactorTable(blocks, table.partitioner)


def _stranger(side: int, rank: int) -> NDArray[np.float32]:
    """The row of an id that is not known: no factor, no bias."""
    row = np.zeros(rank + 2, dtype=np.float32)
    row[rank + 1 if side == USERS else rank] = 1
    return row


@spared
def _with_one(side: int, blocks: Iterable[FactorBlock]) -> Iterator[FactorBlock]:
    """``(U, b, 1)`` of users, ``(P, 1, b)`` of products: a bias meets a one."""
    for block in blocks:
        rows = block.rows.copy()
        rows[:, -1] = 1  # in place of how many ratings there were
        if side == PRODUCTS:
            rows[:, -2:] = rows[:, :-3:-1]
        yield FactorBlock(block.ids, rows)


@spared
def _with_mean(mean: float, blocks: Iterable[FactorBlock]) -> Iterator[FactorBlock]:
    for block in blocks:
        rows = block.rows.copy()
        rows[:, -1] = rows[:, -1].astype(np.float64) + mean
        yield FactorBlock(block.ids, rows)


def _as_ratings(mean: float, batch: tuple[Any, Any, Any]) -> Iterator[Rating]:
    users, products, scores = batch
    return map(Rating, users.tolist(), products.tolist(), (scores + mean).tolist())
