"""The trained model: predictions, recommendations, fold-in and files."""

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
    """Trained matrix factorisation. Predicted ratings are dot products of factors.

    Created by `rddals.ALS.train`, `rddals.ALS.trainImplicit` or `load`. It has the methods of
    ``pyspark.mllib.recommendation.MatrixFactorizationModel`` and additional ones. The factors stay
    distributed in two persisted RDDs until `unpersist`.

    Attributes
    ----------
    rank : int
        Length of each factor.
    history : tuple of HalfStepDone
        Loss and duration of every half-step of the training. Empty for a loaded model.
    seed : int or None
        Seed of the starting factors. None for a model that MLlib saved.
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
        # Recommendations for all ids are lazy, so their inputs are retained until `unpersist`.
        self._broadcasts: dict[FactorTable, Broadcast[FactorBlock]] = {}
        self._seen: list[Shuffle] = []
        self._means: dict[FactorTable, NDArray[np.float32]] = {}
        self._released = False

    @property
    def seed(self) -> int | None:
        """Seed of the starting factors."""
        return None if self._settings is None else self._settings.seed

    # ------------------------------------------------------------------ predictions

    def predict(self, user: int, product: int) -> float:
        """Predict the rating of a product by a user.

        Parameters
        ----------
        user, product : int
            Ids.

        Returns
        -------
        float

        Raises
        ------
        UnknownIdError
            If the model was not trained on the user or the product.
        """
        user_row = self._row("user", user)
        product_row = self._row("product", product)
        return float(pair_scores(user_row, product_row))

    def predictAll(self, user_product: RDD[tuple[int, int]]) -> RDD[Rating]:
        """Predict the ratings of ``(user, product)`` pairs, in no particular order.

        Pairs with an unknown user or product are left out. As in MLlib, the first pair is checked
        in this call; the others are checked when the result is computed.

        Parameters
        ----------
        user_product : RDD of (int, int)
            Pairs of user and product ids.

        Returns
        -------
        RDD of Rating
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
        """Return the `num` products with the highest predicted ratings for a user, best first.

        Parameters
        ----------
        user : int
            User id.
        num : int
            Maximum number of products.
        exclude : iterable of int
            Products to leave out.
        candidates : iterable of int, optional
            Products to score; unknown ids are ignored. The default is all products.
        fallback : {"popular"}, optional
            Recommendation for an unknown user. "popular" returns the products with the most
            ratings, most first, each with the predicted rating of the average user. Ranking by
            number of ratings covers up to 1,000 products; further ones are ranked by this
            prediction. The default raises an error.

        Returns
        -------
        list of Rating

        Raises
        ------
        UnknownIdError
            If the model was not trained on the user and `fallback` is None.
        """
        best = self._recommend("user", user, TopNQuery.checked(num, exclude, candidates), fallback)
        return [Rating(int(user), id_, score) for id_, score in best]

    def recommendUsers(
        self,
        product: int,
        num: int,
        *,
        exclude: Any = (),
        candidates: Any = None,
        fallback: str | None = None,
    ) -> list[Rating]:
        """Return the `num` users with the highest predicted ratings for a product, best first.

        Parameters are those of `recommendProducts`, with users and products exchanged.
        """
        best = self._recommend(
            "product", product, TopNQuery.checked(num, exclude, candidates), fallback
        )
        return [Rating(id_, int(product), score) for id_, score in best]

    def recommendProductsForUsers(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """Return the `num` best products for every user, best first.

        The product factors are broadcast: 4 bytes times rank per product, to every executor.

        Parameters
        ----------
        num : int
            Maximum number of products per user.
        excludeSeen : RDD or DataFrame of ratings, optional
            Ratings whose products are not recommended to the users who rated them. They are read
            in this call.
        candidates : iterable of int, optional
            Products to score. The default is all products.

        Returns
        -------
        RDD of (int, tuple of Rating)
            Each user with the recommended products.
        """
        return self._recommend_for_all(
            0, TopNQuery.checked(num, candidates=candidates), excludeSeen, _for_user
        )

    def recommendUsersForProducts(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """Return the `num` best users for every product, best first.

        Parameters are those of `recommendProductsForUsers`, with users and products exchanged.
        """
        return self._recommend_for_all(
            1, TopNQuery.checked(num, candidates=candidates), excludeSeen, _for_product
        )

    def similarProducts(self, product: int, num: int) -> list[tuple[int, float]]:
        """Return the `num` products with the most similar factors, and the cosine similarities.

        The product itself is left out.
        """
        return self._similar("product", product, num)

    def similarUsers(self, user: int, num: int) -> list[tuple[int, float]]:
        """Return the `num` users with the most similar factors, and the cosine similarities.

        The user itself is left out.
        """
        return self._similar("user", user, num)

    # ------------------------------------------------------------------ fold-in

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
        """Return a copy of the model extended by new or changed users.

        Each user of `ratings` gets the factor that a half-step of training computes from these
        ratings with the products held fixed. All other users keep their factors. This model does
        not change; both models share the products.

        Parameters
        ----------
        ratings : RDD or DataFrame
            All ratings of the users to add or change, in a form that `rddals.ALS.train` accepts.
        lambda_, alpha, nonnegative, duplicates : optional
            Settings of the half-step. The default is the settings of the training. A model that
            MLlib saved does not store them: pass `lambda_`, and `alpha` for implicit feedback.
        unknownProducts : {"raise", "drop"}
            Treatment of ratings of products that the model does not know.
        userCol, itemCol, ratingCol : str, optional
            Columns of a DataFrame, as for `rddals.ALS.train`.

        Returns
        -------
        MatrixFactorizationModel
            The extended model.

        Raises
        ------
        UnknownIdError
            If a product is unknown and `unknownProducts` is "raise".
        RddalsError
            Same errors as `rddals.ALS.train`.
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
        """Return the settings of the training, updated by the given ones."""
        if self._settings is not None:
            document = self._settings.document()
        elif "lambda_" in given:
            document = {"rank": self.rank, "iterations": 0, "nonnegative": False, "seed": 0}
        else:
            raise SettingError(
                "MLlib saved this model without its training settings; pass lambda_, and alpha if "
                "the feedback is implicit."
            )
        if "alpha" in given and self._settings is None:
            document["implicit"] = True
        elif "alpha" in given and not document["implicit"]:
            raise SettingError(
                f"alpha={given['alpha']!r} is for implicit feedback, but this model was trained on "
                "explicit ratings; leave it out."
            )
        return Settings.checked(**(document | given))

    # ------------------------------------------------------------------ factors and files

    def userFeatures(self) -> RDD[tuple[int, Any]]:
        """Return ``(user, array('d'))`` pairs with the partitioning of the users."""
        return self._factors()[0].pairs()

    def productFeatures(self) -> RDD[tuple[int, Any]]:
        """Return ``(product, array('d'))`` pairs with the partitioning of the products."""
        return self._factors()[1].pairs()

    def collected_factors(self) -> tuple[FactorBlock, FactorBlock]:
        """Collect the user and product factors on the driver, by ascending id."""
        users, products = self._factors()
        return users.collect(self.rank), products.collect(self.rank)

    def toLocal(self) -> LocalModel:
        """Copy the model to the memory of this process; answers then take microseconds."""
        return LocalModel(*self.collected_factors(), self._popular[1])

    def save(self, sc: SparkContext, path: str) -> None:
        """Save the model in MLlib's format.

        Parameters
        ----------
        sc : SparkContext
            Running context.
        path : str
            Directory that does not contain a model yet.

        Raises
        ------
        ModelExistsError
            If a model already exists at `path`.
        SettingError
            If Spark cannot write to `path`, or reads it as a pattern.
        """
        check_location(sc, path)
        write_model(sc, path, self.rank, self._factors(), self._settings, self._popular)

    @classmethod
    def load(cls, sc: SparkContext, path: str) -> MatrixFactorizationModel:
        """Load a model that this class or MLlib saved.

        Parameters
        ----------
        sc : SparkContext
            Running context.
        path : str
            Directory of the model.

        Returns
        -------
        MatrixFactorizationModel

        Raises
        ------
        ModelFormatError
            If `path` does not contain a model that can be loaded.
        """
        check_location(sc, path)
        saved = read_model(sc, path)
        return cls(
            saved.rank, saved.users, saved.products, settings=saved.settings, popular=saved.popular
        )

    def unpersist(self) -> None:
        """Release the factors and everything else that the model stores.

        Afterwards the model and the RDDs it returned cannot be used. Products that several models
        share after `foldIn` are released with the last of them.
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
        """Return the smallest and largest id of the users and of the products."""
        users, products = self._factors()
        return users.bounds(), products.bounds()

    def _factors(self) -> tuple[FactorTable, FactorTable]:
        """Return the user and product factors, or raise if they were released."""
        # Spark would recompute them from ratings that may be missing or different.
        if self._released:
            raise ModelReleasedError(
                "unpersist() has released this model's factors; train again, or save() the model "
                "before unpersist() and load it."
            )
        if is_stopped(self._users.blocks.context):
            raise ModelReleasedError(
                "The SparkContext of this model is stopped; save() the model before stop(), and "
                "load it in a running context."
            )
        return self._users, self._products

    def _row(self, side: str, id_: Any) -> NDArray[np.float32]:
        row = self._row_or_none(side, id_)
        if row is None:
            raise unknown_id(side, id_)
        return row

    def _row_or_none(self, side: str, id_: Any) -> NDArray[np.float32] | None:
        table = self._factors()[ID_NAMES.index(side)]
        integer = checked_id(side, id_)
        return table.row(integer) if INT32_MIN <= integer <= INT32_MAX else None

    def _recommend(
        self, side: str, id_: Any, query: TopNQuery, fallback: Any
    ) -> list[tuple[int, float]]:
        """Return the best ids of the other side and their scores."""
        index = ID_NAMES.index(side)
        own, other = self._factors()[index], self._factors()[1 - index]
        row = self._row_or_none(side, id_) if uses_fallback(fallback) else self._row(side, id_)
        if row is not None:
            return _pairs(*top_n(other, row, query))
        mean = self._mean(own)
        return popular_then_best(
            self._popular[1 - index].ids,
            query,
            lambda ids: pair_scores(mean, other.rows(ids)),
            lambda rest: _pairs(*top_n(other, mean, rest)),
        )

    def _mean(self, table: FactorTable) -> NDArray[np.float32]:
        if table not in self._means:
            self._means[table] = table.mean(self.rank)
        return self._means[table]

    def _similar(self, side: str, id_: Any, num: Any) -> list[tuple[int, float]]:
        row = self._row(side, id_)
        own_id = np.array([int(id_)])
        unit = FactorBlock(own_id, row[None, :]).unit().rows[0]
        table = self._factors()[ID_NAMES.index(side)]
        return _pairs(*top_n(table, unit, TopNQuery.checked(num, own_id), unit=True))

    def _recommend_for_all(
        self, side: int, query: TopNQuery, seen: Any, as_ratings: Any
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        table, items = self._factors()[side], self._factors()[1 - side]
        pairs = None
        if seen is not None:
            pairs = seen_pairs(rating_source(seen), side, table)
            self._seen.append(pairs)
        if items not in self._broadcasts:
            factors = items.collect(self.rank)
            self._broadcasts[items] = items.blocks.context.broadcast(factors)
        return top_n_for_all(table, self._broadcasts[items], query, as_ratings, seen=pairs)


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
    """Raise unless `sc` is a running SparkContext and `path` a non-empty string."""
    if not isinstance(sc, SparkContext):
        raise TypeError(f"sc should be a SparkContext, got type {type(sc)}")
    if not isinstance(path, str):
        raise TypeError(f"path should be a string, got type {type(path)}")
    if is_stopped(sc):
        raise SettingError("The SparkContext is stopped; pass a running one.")
    if not path:
        raise SettingError("path is empty; pass the path of a directory.")
