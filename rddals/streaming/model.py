"""The model of a stream: it predicts for everybody, and learns from the next batch."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, SparkContext
from pyspark.mllib.recommendation import Rating

from rddals.blocks.ratings import INT32_MAX, INT32_MIN
from rddals.blocks.sides import ID_NAMES, PRODUCTS, USERS
from rddals.config import StreamSettings
from rddals.errors import ModelReleasedError, SettingError
from rddals.kernels.topk import pair_scores
from rddals.model.matrix import MatrixFactorizationModel, check_location
from rddals.model.query import TopNQuery, checked_id
from rddals.model.top_n import top_n
from rddals.rdds.context import head, is_stopped
from rddals.rdds.factors import FactorTable, is_pair, predict_pairs
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.lifetimes import cut_lineage, discard
from rddals.streaming.batch import BatchLearned, learn, sweep
from rddals.streaming.files import read_stream, write_stream
from rddals.streaming.levels import Levels
from rddals.streaming.rows import product_factors, state_width, user_factors
from rddals.streaming.state import StreamState

__all__ = ["StreamingModel"]


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
    learned : BatchLearned or None
        What became of the last batch; None if it was loaded since.
    seed : int
        What the products' starting factors are drawn with.
    """

    def __init__(
        self,
        state: StreamState,
        settings: StreamSettings,
        columns: Columns,
        learned: BatchLearned | None,
    ) -> None:
        self.learned = learned
        self._settings = settings
        self._columns = columns
        self._state = state
        # Of all that was recommended to everybody: it holds what these read until `unpersist`.
        self._view: MatrixFactorizationModel | None = None
        for levels in state.all_levels:
            levels.retain()
        # Whoever drops the last reference to a model frees what it alone has held.
        self._finalizer = weakref.finalize(self, _release, state.all_levels)
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
        updated, learned = learn(rating_source(ratings, self._columns), state, self._settings)
        return StreamingModel(updated, self._settings, self._columns, learned)

    def sweep(self, iterations: int = 1) -> StreamingModel:
        """A new model, of which every user and product is solved anew; this one stays as it is.

        With enough sweeps it is what one batch of all ratings would have given.

        Parameters
        ----------
        iterations : int
            How often all users, then all products are solved.

        Raises
        ------
        SettingError
            If the model keeps no ratings: one of ``update="sgd"``.
        """
        state = self._usable_state()
        if state.history is None:
            raise SettingError(
                "A model of update='sgd' keeps no ratings to sweep over; train with update='als'."
            )
        document = self._settings.document() | {"iterations": iterations}
        swept = sweep(state, StreamSettings.checked(**document))
        return StreamingModel(swept, self._settings, self._columns, self.learned)

    # ------------------------------------------------------------------ predictions

    def predict(self, user: int, product: int) -> float:
        """The predicted rating of a product by a user; what is not known of them counts as zero."""
        users, products = self._tables()
        rows = self._row(users, USERS, user), self._row(products, PRODUCTS, product)
        return float(pair_scores(*rows))

    def predictAll(self, user_product: RDD[tuple[int, int]]) -> RDD[Rating]:
        """Predicted ratings of ``(user, product)`` pairs, of every one, in no particular order."""
        assert isinstance(user_product, RDD), "user_product should be RDD of (user, product)"
        tables = self._tables()
        assert all(map(is_pair, head(user_product))), (
            "user_product should be RDD of (user, product)"
        )
        self._leave_to_spark()
        default_rows = (self._default_row(USERS), self._default_row(PRODUCTS))
        return predict_pairs(*tables, user_product, default_rows).flatMap(_as_ratings)

    # ------------------------------------------------------------------ recommendations

    def recommendProducts(
        self, user: int, num: int, *, exclude: Any = (), candidates: Any = None
    ) -> list[Rating]:
        """The `num` products with the highest predicted ratings for a user, best first.

        A user that is not known gets those that are best liked.

        Parameters
        ----------
        user, num : int
        exclude : iterable of int
            Products that are left out.
        candidates : iterable of int, optional
            Products that are looked at; all if left out.
        """
        asked = TopNQuery.checked(num, exclude, candidates)
        users, products = self._tables()
        ids, scores = top_n(products, self._row(users, USERS, user), asked)
        return list(map(partial(Rating, int(user)), ids.tolist(), scores.tolist()))

    def recommendUsers(
        self, product: int, num: int, *, exclude: Any = (), candidates: Any = None
    ) -> list[Rating]:
        """The `num` users with the highest predicted ratings for a product, best first.

        Arguments as those of `recommendProducts`, users and products exchanged.
        """
        asked = TopNQuery.checked(num, exclude, candidates)
        users, products = self._tables()
        ids, scores = top_n(users, self._row(products, PRODUCTS, product), asked)
        found = zip(ids.tolist(), scores.tolist(), strict=True)
        return [Rating(id_, int(product), score) for id_, score in found]

    def recommendProductsForUsers(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """As `rddals.MatrixFactorizationModel.recommendProductsForUsers`."""
        view = self._matrix_view()
        return view.recommendProductsForUsers(num, excludeSeen=excludeSeen, candidates=candidates)

    def recommendUsersForProducts(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """As `rddals.MatrixFactorizationModel.recommendUsersForProducts`."""
        view = self._matrix_view()
        return view.recommendUsersForProducts(num, excludeSeen=excludeSeen, candidates=candidates)

    # ------------------------------------------------------------------ other models, files

    def toMatrixFactorizationModel(self) -> MatrixFactorizationModel:
        """A model of its own for everything that takes one, of rank `rank` + 2.

        A user's factor is ``(U, b_user, 1)`` and a product's ``(P, 1, b_product + mean)``: their
        dot product is this model's prediction.
        """
        tables = self._tables()
        made: list[FactorTable] = []
        try:
            for table in tables:
                cut_lineage(table.blocks)
                made.append(table)
        except BaseException:
            for table in made:
                discard(table.blocks)
            raise
        return MatrixFactorizationModel(self.rank + 2, *tables)

    def save(self, sc: SparkContext, path: str) -> None:
        """Save all of it, at a path that does not exist yet.

        Raises
        ------
        ModelExistsError
            If there is a model at `path`.
        """
        check_location(sc, path)
        state = self._usable_state()
        write_stream(sc, path, state, self._settings, self._columns)

    @classmethod
    def load(cls, sc: SparkContext, path: str) -> StreamingModel:
        """Load a model that `save` wrote.

        Raises
        ------
        ModelFormatError
            If there is none at `path`.
        """
        check_location(sc, path)
        state, settings, columns = read_stream(sc, path)
        return cls(state, settings, columns, None)

    def unpersist(self) -> None:
        """Free what this model alone holds; neither it nor what it recommended is of use then.

        Other models keep theirs. What `predictAll` or recommendations for everybody were computed
        from, Spark frees when nothing refers to it any more.
        """
        self._finalizer()
        if self._view is not None:
            self._view.unpersist()
            self._view = None

    # ------------------------------------------------------------------ inside

    def _usable_state(self) -> StreamState:
        if not self._finalizer.alive:
            raise ModelReleasedError(
                "unpersist() has freed this model; go on from the one that learned last."
            )
        if is_stopped(self._state.sides[USERS].rdds[0].context):
            raise ModelReleasedError(
                "The SparkContext of this model is stopped; save() a model before, and load it in "
                "a running one."
            )
        return self._state

    def _tables(self) -> tuple[FactorTable, FactorTable]:
        """Both sides as views, laid out as `toMatrixFactorizationModel` says."""
        users, products = self._usable_state().sides
        as_product_factors = partial(product_factors, mean=self.mean)
        return users.view(user_factors), products.view(as_product_factors)

    def _matrix_view(self) -> MatrixFactorizationModel:
        """What `toMatrixFactorizationModel` gives, computed whenever it is read."""
        self._usable_state()
        if self._view is None:
            self._leave_to_spark()
            self._view = MatrixFactorizationModel(self.rank + 2, *self._tables())
        return self._view

    def _row(self, table: FactorTable, side: int, id_: Any) -> NDArray[np.float32]:
        asked = checked_id(ID_NAMES[side], id_)
        row = table.row(asked) if INT32_MIN <= asked <= INT32_MAX else None
        return self._default_row(side) if row is None else row

    def _default_row(self, side: int) -> NDArray[np.float32]:
        """The row of an id that is not known: no factor, no bias."""
        nothing = np.zeros((1, state_width(self.rank)), dtype=np.float32)
        known = user_factors(nothing) if side == USERS else product_factors(nothing, self.mean)
        return known[0]

    def _leave_to_spark(self) -> None:
        """Leave it to Spark to free what this model holds: what it gave may be computed later."""
        for side in self._state.sides:
            for level in side.levels:
                level.leave_to_spark()


def _release(sides: Iterable[Levels]) -> None:
    for side in sides:
        if side.levels and not is_stopped(side.levels[0].blocks.context):
            side.release()


def _as_ratings(batch: tuple[Any, Any, Any]) -> Iterator[Rating]:
    return map(Rating, *(column.tolist() for column in batch))
