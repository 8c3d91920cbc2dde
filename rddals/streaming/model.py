"""Model of a stream: predicts for all ids and learns from the next batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, SparkContext
from pyspark.mllib.recommendation import Rating

from rddals.blocks.sides import PRODUCTS, USERS
from rddals.config import StreamSettings
from rddals.errors import ModelReleasedError, SettingError
from rddals.model.factors import FactorPair, raise_if_lost
from rddals.model.files import checked_location
from rddals.model.matrix import MatrixFactorizationModel
from rddals.model.top_n_query import TopNQuery
from rddals.rdds.context import is_stopped
from rddals.rdds.factors import FactorTable
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.lifetimes import cut_lineage, undo_on_failure
from rddals.streaming.batch import BatchLearned, learn, sweep
from rddals.streaming.files import read_stream, write_stream
from rddals.streaming.levels import Levels
from rddals.streaming.rows import product_factors, state_width, user_factors
from rddals.streaming.state import StreamState


class StreamingModel:
    """Biased matrix factorisation that learns batch by batch.

    The model predicts ``mean + b_user + b_product + U_user . P_product``. It is created by
    `rddals.StreamingALS.train` and never changes: `train` returns a new model. Models share the
    rows they have in common; rows that no model needs are freed.

    Attributes
    ----------
    learned : BatchLearned or None
        Result of the last batch; None for a loaded model.
    settings : StreamSettings
        Settings that batches are learned with.
    state : StreamState
        Rows of users and products, counts, and stored ratings.
    """

    def __init__(
        self,
        state: StreamState,
        settings: StreamSettings,
        columns: Columns,
        learned: BatchLearned | None,
    ) -> None:
        self.learned = learned
        self.settings = settings
        self.state = state
        self._columns = columns
        #: Inputs of recommendations for all ids, which are computed later.
        self._retained_view: FactorPair | None = None
        for levels in state.all_levels:
            levels.retain()
        # Dropping the last reference to a model frees the levels that it alone holds.
        self._finalizer = weakref.finalize(self, _release, state.all_levels)
        self._finalizer.atexit = False  # Spark has stopped by then

    def __repr__(self) -> str:
        counts = f"users={self.users}, products={self.products}, ratings={self.ratings}"
        return f"StreamingModel(rank={self.rank}, {counts})"

    @property
    def rank(self) -> int:
        """Length of a factor."""
        return self.settings.rank

    @property
    def seed(self) -> int:
        """Seed of the products' starting factors."""
        return self.settings.seed

    @property
    def mean(self) -> float:
        """Mean of all ratings so far."""
        return self.state.mean

    @property
    def ratings(self) -> int:
        """Number of ratings so far."""
        return self.state.ratings

    @property
    def users(self) -> int:
        """Number of users with a row."""
        return self.state.ids[USERS]

    @property
    def products(self) -> int:
        """Number of products with a row."""
        return self.state.ids[PRODUCTS]

    @property
    def batches(self) -> int:
        """Number of batches so far, including empty ones."""
        return self.state.batches

    def train(self, ratings: Any) -> StreamingModel:
        """Return a new model that has also learned a batch; this one stays unchanged.

        Parameters
        ----------
        ratings : RDD or DataFrame
            As for `rddals.StreamingALS.train`. A batch without ratings teaches nothing.

        Raises
        ------
        RddalsError
            As for `rddals.StreamingALS.train`.
        """
        state = self._usable_state()
        updated, learned = learn(rating_source(ratings, self._columns), state, self.settings)
        return StreamingModel(updated, self.settings, self._columns, learned)

    def sweep(self, iterations: int = 1) -> StreamingModel:
        """Return a new model with all users and products solved again; this one stays unchanged.

        With enough sweeps it is the model that one batch of all ratings would have given.

        Parameters
        ----------
        iterations : int
            Number of times that all users, then all products are solved.

        Raises
        ------
        SettingError
            If the model stores no ratings, as with ``update="sgd"``.
        """
        state = self._usable_state()
        if state.history is None:
            raise SettingError(
                "A model of update='sgd' stores no ratings to sweep over; train with update='als'."
            )
        document = self.settings.document() | {"iterations": iterations}
        swept = sweep(state, StreamSettings.checked(**document))
        return StreamingModel(swept, self.settings, self._columns, self.learned)

    # ------------------------------------------------------------------ predictions

    def predict(self, user: int, product: int) -> float:
        """Predict the rating of a product by a user.

        An unknown id has a zero factor and a zero bias.
        """
        return self._factors().predict(user, product)

    def predictAll(self, user_product: RDD[tuple[int, int]]) -> RDD[Rating]:
        """Predict the rating of every ``(user, product)`` pair, in no particular order."""
        factors = self._factors()
        self._leave_to_spark()
        return factors.predict_all(user_product)

    # ------------------------------------------------------------------ recommendations

    def recommendProducts(
        self, user: int, num: int, *, exclude: Any = (), candidates: Any = None
    ) -> list[Rating]:
        """Return the `num` products with the highest predicted ratings for a user, best first.

        An unknown user gets the products with the highest biases.

        Parameters
        ----------
        user, num : int
        exclude : iterable of int
            Products to leave out.
        candidates : iterable of int, optional
            Products to score; all by default.
        """
        query = TopNQuery.checked(num, exclude, candidates)
        return self._factors().recommend(USERS, user, query)

    def recommendUsers(
        self, product: int, num: int, *, exclude: Any = (), candidates: Any = None
    ) -> list[Rating]:
        """Return the `num` users with the highest predicted ratings for a product, best first.

        Arguments are as for `recommendProducts`, with users and products exchanged.
        """
        query = TopNQuery.checked(num, exclude, candidates)
        return self._factors().recommend(PRODUCTS, product, query)

    def recommendProductsForUsers(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """Recommend as `rddals.MatrixFactorizationModel.recommendProductsForUsers` does."""
        query = TopNQuery.checked(num, candidates=candidates)
        return self._view().recommend_for_all(USERS, query, excludeSeen)

    def recommendUsersForProducts(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """Recommend as `rddals.MatrixFactorizationModel.recommendUsersForProducts` does."""
        query = TopNQuery.checked(num, candidates=candidates)
        return self._view().recommend_for_all(PRODUCTS, query, excludeSeen)

    # ------------------------------------------------------------------ other models, files

    def toMatrixFactorizationModel(self) -> MatrixFactorizationModel:
        """Return an independent `MatrixFactorizationModel`, of rank `rank` + 2.

        A user's factor is ``(U, b_user, 1)`` and a product's ``(P, 1, b_product + mean)``: their
        dot product is this model's prediction.
        """
        tables = self._tables()
        with undo_on_failure() as undo:
            for table in tables:
                cut_lineage(table.blocks)
                undo.callback(table.discard)
        return MatrixFactorizationModel(self.rank + 2, *tables)

    def save(self, sc: SparkContext, path: str) -> None:
        """Save the model at a path that does not exist yet.

        Raises
        ------
        ModelExistsError
            If `path` already holds a model.
        """
        sc = checked_location(sc, path)
        state = self._usable_state()
        write_stream(sc, path, state, self.settings, self._columns)

    @classmethod
    def load(cls, sc: SparkContext, path: str) -> StreamingModel:
        """Load a model that `save` wrote.

        Raises
        ------
        ModelFormatError
            If `path` holds no complete model.
        """
        sc = checked_location(sc, path)
        state, settings, columns = read_stream(sc, path)
        return cls(state, settings, columns, None)

    def unpersist(self) -> None:
        """Free the data that only this model holds.

        Afterwards neither the model nor its recommendations can be used. Other models keep their
        data. Data behind the results of `predictAll` or of recommendations for all ids is freed
        by Spark when nothing refers to it.
        """
        self._finalizer()
        if self._retained_view is not None:
            self._retained_view.release()
            self._retained_view = None

    # ------------------------------------------------------------------ inside

    def _usable_state(self) -> StreamState:
        if not self._finalizer.alive:
            raise ModelReleasedError(
                "unpersist() has released this model; use the latest model instead."
            )
        if any(is_stopped(rdd.context) for rdd in self.state.sides[USERS].rdds):
            raise ModelReleasedError(
                "The SparkContext of this model is stopped; save() a model before stopping it, and "
                "load the model in a running one."
            )
        raise_if_lost(level.blocks for levels in self.state.all_levels for level in levels.levels)
        return self.state

    def _tables(self) -> tuple[FactorTable, FactorTable]:
        """Return both sides as views in the layout of `toMatrixFactorizationModel`."""
        users, products = self._usable_state().sides
        as_product_factors = partial(product_factors, mean=self.mean)
        return users.view(user_factors), products.view(as_product_factors)

    def _factors(self) -> FactorPair:
        """Return the factors of `toMatrixFactorizationModel`, computed again on every read."""
        default_rows = (self._default_row(USERS), self._default_row(PRODUCTS))
        return FactorPair(self.rank + 2, self._tables(), default_rows=default_rows)

    def _view(self) -> FactorPair:
        """Return factors that are retained until `unpersist`, for lazy results."""
        self._usable_state()
        if self._retained_view is None:
            self._leave_to_spark()
            self._retained_view = self._factors()
        return self._retained_view

    def _default_row(self, side: int) -> NDArray[np.float32]:
        """Return the row of an unknown id: zero factor, zero bias."""
        zeros = np.zeros((1, state_width(self.rank)), dtype=np.float32)
        rows = user_factors(zeros) if side == USERS else product_factors(zeros, self.mean)
        return rows[0]

    def _leave_to_spark(self) -> None:
        """Let Spark free this model's levels, since its results may be computed later."""
        for side in self.state.sides:
            for level in side.levels:
                level.leave_to_spark()


def _release(sides: Iterable[Levels]) -> None:
    for side in sides:
        if side.levels and not is_stopped(side.levels[0].blocks.context):
            side.release()
