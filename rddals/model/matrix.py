"""The trained model: predictions, recommendations, files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, Broadcast, SparkContext
from pyspark.mllib.recommendation import Rating

from rddals.blocks.factors import FactorBlock
from rddals.blocks.popularity import Popularity
from rddals.blocks.ratings import INT32_MAX, INT32_MIN
from rddals.blocks.sides import ID_NAMES
from rddals.config import Settings
from rddals.errors import ModelReleasedError, SettingError
from rddals.kernels.topk import pair_scores
from rddals.model.files import read_model, write_model
from rddals.model.local import LocalModel
from rddals.model.query import TopNQuery, checked_id, popular_then_best, unknown_id, uses_fallback
from rddals.model.top_n import seen_pairs, top_n, top_n_for_all
from rddals.rdds.context import head, is_stopped
from rddals.rdds.factors import FactorTable, is_pair, predict_pairs
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.shuffles import Shuffle
from rddals.training.fold_in import fold_in

__all__ = ["MatrixFactorizationModel", "check_location"]


class MatrixFactorizationModel:
    """A matrix factorisation: what users like, as dot products of factors.

    Made by `rddals.ALS.train`, `rddals.ALS.trainImplicit` or `load`; the methods are those of
    ``pyspark.mllib.recommendation.MatrixFactorizationModel``, and more. The factors stay
    distributed, in two persisted RDDs, until `unpersist`.

    Attributes
    ----------
    rank : int
        Length of a factor.
    history : tuple of HalfStepDone
        Loss and seconds of every half-step of the training; empty for a loaded model.
    seed : int or None
        What the starting factors were drawn with; None for a model that MLlib saved.
    """

    def __init__(
        self,
        rank: int,
        user_factors: FactorTable,
        product_factors: FactorTable,
        *,
        history: Sequence[Any] = (),
        settings: Settings | None = None,
        popular: tuple[Popularity, Popularity] | None = None,
    ) -> None:
        self.rank = rank
        self.history = tuple(history)
        self._settings = settings
        self._popular = popular or (Popularity.none(), Popularity.none())
        self._users = user_factors.retain()
        self._products = product_factors.retain()
        # Recommendations for everybody are lazy, so what they read stays until `unpersist`.
        self._broadcasts: dict[FactorTable, Broadcast[FactorBlock]] = {}
        self._seen: list[Shuffle] = []
        self._means: dict[FactorTable, NDArray[np.float32]] = {}
        self._released = False

    @property
    def seed(self) -> int | None:
        """What the starting factors were drawn with."""
        return None if self._settings is None else self._settings.seed

    # ------------------------------------------------------------------ predictions

    def predict(self, user: int, product: int) -> float:
        """The predicted rating of a product by a user.

        Raises
        ------
        UnknownIdError
            If the model was not trained on the user or the product.
        """
        user_row = self._row("user", user)
        product_row = self._row("product", product)
        return float(pair_scores(user_row, product_row))

    def predictAll(self, user_product: RDD[tuple[int, int]]) -> RDD[Rating]:
        """Predicted ratings of ``(user, product)`` pairs, in no particular order.

        Pairs of which the model does not know the user or the product are left out. Like MLlib,
        this looks at the first pair; the others are checked when the result is computed.
        """
        assert isinstance(user_product, RDD), "user_product should be RDD of (user, product)"
        users, products = self._factors()
        assert all(map(is_pair, head(user_product))), (
            "user_product should be RDD of (user, product)"
        )
        return predict_pairs(users, products, user_product).flatMap(_as_ratings)

    # ------------------------------------------------------------------ recommendations

    def recommendProducts(
        self,
        user: int,
        num: int,
        *,
        exclude: Any = (),
        candidates: Any = None,
        fallback: str | None = None,
    ) -> list[Rating]:
        """The `num` products with the highest predicted ratings for a user, best first.

        Parameters
        ----------
        user, num : int
        exclude : iterable of int
            Products that are left out.
        candidates : iterable of int, optional
            Products that are looked at; all if left out. Those the model does not know count for
            nothing.
        fallback : {"popular"}, optional
            For a user the model does not know: the products with the most ratings, most first,
            each with the average user's predicted rating. Up to 1,000 are known by their number
            of ratings; what comes after them is ranked by that prediction.

        Raises
        ------
        UnknownIdError
            If the model was not trained on the user, and there is no fallback.
        """
        found = self._recommend("user", user, TopNQuery.checked(num, exclude, candidates), fallback)
        return [Rating(int(user), id_, score) for id_, score in found]

    def recommendUsers(
        self,
        product: int,
        num: int,
        *,
        exclude: Any = (),
        candidates: Any = None,
        fallback: str | None = None,
    ) -> list[Rating]:
        """The `num` users with the highest predicted ratings for a product, best first.

        Arguments as those of `recommendProducts`, users and products exchanged.
        """
        found = self._recommend(
            "product", product, TopNQuery.checked(num, exclude, candidates), fallback
        )
        return [Rating(id_, int(product), score) for id_, score in found]

    def recommendProductsForUsers(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """For every user the `num` products with the highest predicted ratings, best first.

        The products' factors are broadcast: 4 bytes times rank for each, to every executor.

        Parameters
        ----------
        num : int
        excludeSeen : RDD or DataFrame of ratings, optional
            No user is recommended what these say that the user rated. They are read at once.
        candidates : iterable of int, optional
            Products that are looked at; all if left out.
        """
        return self._recommend_for_all(
            0, TopNQuery.checked(num, candidates=candidates), excludeSeen, _for_user
        )

    def recommendUsersForProducts(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """For every product the `num` users with the highest predicted ratings, best first.

        Arguments as those of `recommendProductsForUsers`, users and products exchanged.
        """
        return self._recommend_for_all(
            1, TopNQuery.checked(num, candidates=candidates), excludeSeen, _for_product
        )

    def similarProducts(self, product: int, num: int) -> list[tuple[int, float]]:
        """The `num` products whose factors are most similar, with the cosine of the angle."""
        return self._similar("product", product, num)

    def similarUsers(self, user: int, num: int) -> list[tuple[int, float]]:
        """The `num` users whose factors are most similar, with the cosine of the angle."""
        return self._similar("user", user, num)

    # ------------------------------------------------------------------ new users

    def foldIn(
        self,
        ratings: Any,
        *,
        lambda_: float | None = None,
        alpha: float | None = None,
        nonnegative: bool | None = None,
        duplicates: str | None = None,
        unknownProducts: str = "raise",
        userCol: str | None = None,
        itemCol: str | None = None,
        ratingCol: str | None = None,
    ) -> MatrixFactorizationModel:
        """A copy of this model that is grown by new or changed users.

        Each user of `ratings` gets the factor that a half-step of training would give, with these
        ratings and the products as they are. All other users keep theirs. The model that this is
        called on stays as it is; both share the products.

        Parameters
        ----------
        ratings : RDD or DataFrame
            All ratings of the users it names, as `rddals.ALS.train` takes them.
        lambda_, alpha, nonnegative, duplicates : optional
            As in the training, if left out. A model that MLlib saved does not know its training:
            it needs `lambda_`, and `alpha` if the feedback is implicit.
        unknownProducts : {"raise", "drop"}
            What to do about ratings of products that the model does not know.
        userCol, itemCol, ratingCol : str, optional
            Columns of a DataFrame, as for `rddals.ALS.train`.

        Returns
        -------
        MatrixFactorizationModel

        Raises
        ------
        UnknownIdError
            For a product that the model does not know, unless those are dropped.
        RddalsError
            As `rddals.ALS.train` does.
        """
        users, products = self._factors()
        given = {
            "lambda_": lambda_,
            "alpha": alpha,
            "nonnegative": nonnegative,
            "duplicates": duplicates,
        }
        settings = self._fold_settings({k: v for k, v in given.items() if v is not None})
        if unknownProducts not in ("raise", "drop"):
            raise SettingError(
                f"unknownProducts must be 'raise' or 'drop' but got {unknownProducts!r}."
            )
        folded = fold_in(
            rating_source(ratings, Columns.checked(userCol, itemCol, ratingCol)),
            users,
            products,
            settings.objective,
            settings.duplicates,
            drop_unknown=unknownProducts == "drop",
        )
        return MatrixFactorizationModel(
            self.rank,
            folded,
            products,
            history=self.history,
            settings=self._settings,
            popular=self._popular,
        )

    def _fold_settings(self, given: dict[str, Any]) -> Settings:
        """The settings of the training, but for what is given."""
        if self._settings is not None:
            document = self._settings.document()
        elif "lambda_" in given:
            document = {"rank": self.rank, "iterations": 0, "nonnegative": False, "seed": 0}
        else:
            raise SettingError(
                "This model does not know how it was trained, since MLlib saved it; pass lambda_, "
                "and alpha if the feedback is implicit."
            )
        if "alpha" in given and self._settings is None:
            document["implicit"] = True
        elif "alpha" in given and not document["implicit"]:
            raise SettingError(
                f"alpha={given['alpha']!r} is for implicit feedback, but this model was trained on "
                "explicit ratings; leave it out."
            )
        return Settings.checked(**(document | given))

    # ------------------------------------------------------------------ the factors

    def userFeatures(self) -> RDD[tuple[int, Any]]:
        """``(user, array('d'))`` pairs, placed as the users are."""
        return self._factors()[0].pairs()

    def productFeatures(self) -> RDD[tuple[int, Any]]:
        """``(product, array('d'))`` pairs, placed as the products are."""
        return self._factors()[1].pairs()

    def collected_factors(self) -> tuple[FactorBlock, FactorBlock]:
        """Both sides' factors on the driver, ids ascending."""
        users, products = self._factors()
        return users.collect(self.rank), products.collect(self.rank)

    def toLocal(self) -> LocalModel:
        """The whole model in this process's memory: answers in microseconds, without Spark."""
        return LocalModel(*self.collected_factors(), self._popular[1])

    def save(self, sc: SparkContext, path: str) -> None:
        """Save in MLlib's own format, at a path that does not exist yet.

        Raises
        ------
        ModelExistsError
            If there is a model at `path`.
        """
        check_location(sc, path)
        write_model(sc, path, self.rank, self._factors(), self._settings, self._popular)

    @classmethod
    def load(cls, sc: SparkContext, path: str) -> MatrixFactorizationModel:
        """Load a model that this class or MLlib saved.

        Raises
        ------
        ModelFormatError
            If there is none at `path`.
        """
        check_location(sc, path)
        saved = read_model(sc, path)
        return cls(
            saved.rank, saved.users, saved.products, settings=saved.settings, popular=saved.popular
        )

    def unpersist(self) -> None:
        """Free all that the model holds; neither it nor what it recommended is of use then.

        Products that a model shares with one that it was folded into stay until both are freed.
        """
        if not self._released and not is_stopped(self._users.blocks.context):
            for table in (self._users, self._products):
                table.release()
            for broadcast in self._broadcasts.values():
                broadcast.destroy()
            for shuffle in self._seen:
                shuffle.release()
        self._broadcasts.clear()
        self._seen.clear()
        self._released = True

    def id_bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The least and the greatest id, of users and of products."""
        users, products = self._factors()
        return users.bounds(), products.bounds()

    def _factors(self) -> tuple[FactorTable, FactorTable]:
        """Users' and products' factors, which must still be there."""
        # Spark would compute them again, from ratings that may be gone or different by now.
        if self._released:
            raise ModelReleasedError(
                "unpersist() has freed this model's factors; train it again, or save() a model "
                "before and load it."
            )
        if is_stopped(self._users.blocks.context):
            raise ModelReleasedError(
                "The SparkContext of this model is stopped; save() a model before, and load it in "
                "a running one."
            )
        return self._users, self._products

    def _row(self, side: str, id_: Any) -> NDArray[np.float32]:
        row = self._row_or_none(side, id_)
        if row is None:
            raise unknown_id(side, id_)
        return row

    def _row_or_none(self, side: str, id_: Any) -> NDArray[np.float32] | None:
        table = self._factors()[ID_NAMES.index(side)]
        asked = checked_id(side, id_)
        return table.row(asked) if INT32_MIN <= asked <= INT32_MAX else None

    def _recommend(
        self, side: str, id_: Any, asked: TopNQuery, fallback: Any
    ) -> list[tuple[int, float]]:
        """The best ids of the other side, and their scores."""
        own = ID_NAMES.index(side)
        known, table = self._factors()[own], self._factors()[1 - own]
        row = self._row_or_none(side, id_) if uses_fallback(fallback) else self._row(side, id_)
        if row is not None:
            return _pairs(*top_n(table, row, asked))
        mean = self._mean(known)
        return popular_then_best(
            self._popular[1 - own].ids,
            asked,
            lambda ids: pair_scores(mean, table.rows(ids)),
            lambda rest: _pairs(*top_n(table, mean, rest)),
        )

    def _mean(self, table: FactorTable) -> NDArray[np.float32]:
        if table not in self._means:
            self._means[table] = table.mean(self.rank)
        return self._means[table]

    def _similar(self, side: str, id_: Any, num: Any) -> list[tuple[int, float]]:
        row = self._row(side, id_)
        itself = np.array([int(id_)])
        unit = FactorBlock(itself, row[None, :]).unit().rows[0]
        table = self._factors()[ID_NAMES.index(side)]
        return _pairs(*top_n(table, unit, TopNQuery.checked(num, itself), unit=True))

    def _recommend_for_all(
        self, side: int, asked: TopNQuery, seen: Any, as_ratings: Any
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        table, items = self._factors()[side], self._factors()[1 - side]
        pairs = None
        if seen is not None:
            pairs = seen_pairs(rating_source(seen), side, table)
            self._seen.append(pairs)
        if items not in self._broadcasts:
            factors = items.collect(self.rank)
            self._broadcasts[items] = items.blocks.context.broadcast(factors)
        return top_n_for_all(table, self._broadcasts[items], asked, as_ratings, seen=pairs)


def _as_ratings(batch: tuple[Any, Any, Any]) -> Iterator[Rating]:
    users, products, predictions = (column.tolist() for column in batch)
    return map(Rating, users, products, predictions)


def _pairs(ids: NDArray[np.int32], scores: NDArray[np.float64]) -> list[tuple[int, float]]:
    return list(zip(ids.tolist(), scores.tolist(), strict=True))


def _for_user(user: int, products: list[int], scores: list[float]) -> tuple[Rating, ...]:
    return tuple(map(partial(Rating, user), products, scores))


def _for_product(product: int, users: list[int], scores: list[float]) -> tuple[Rating, ...]:
    return tuple(Rating(user, product, score) for user, score in zip(users, scores, strict=True))


def check_location(sc: Any, path: Any) -> None:
    if not isinstance(sc, SparkContext):
        raise TypeError(f"sc should be a SparkContext, got type {type(sc)}")
    if not isinstance(path, str):
        raise TypeError(f"path should be a string, got type {type(path)}")
    if is_stopped(sc):
        raise SettingError("The SparkContext is stopped; pass a running one.")
    if not path:
        raise SettingError("path is empty; pass that of a directory.")
