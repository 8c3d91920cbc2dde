"""The trained model: predictions, recommendations, fold-in and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark import RDD, SparkContext
from pyspark.mllib.recommendation import Rating

from rddals.blocks.factors import FactorBlock
from rddals.blocks.popularity import Popularity
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.config import Settings
from rddals.errors import SettingError
from rddals.model.factors import FactorPair
from rddals.model.files import checked_location, read_model, write_model
from rddals.model.local import LocalModel
from rddals.model.top_n_query import TopNQuery
from rddals.model.wrapper import JavaModelWrapper
from rddals.rdds.factors import FactorTable
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.training.fold_in import fold_in, fold_settings


class MatrixFactorizationModel(JavaModelWrapper):
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
        self.factors = FactorPair(rank, (user_factors, product_factors), popular=popular)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, {self.factors.described()})"

    @property
    def seed(self) -> int | None:
        """Seed of the starting factors."""
        return None if self._settings is None else self._settings.seed

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
        return self.factors.predict(user, product)

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
        return self.factors.predict_all(user_product)

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
        query = TopNQuery.checked(num, exclude, candidates)
        return self.factors.recommend(USERS, user, query, fallback)

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
        query = TopNQuery.checked(num, exclude, candidates)
        return self.factors.recommend(PRODUCTS, product, query, fallback)

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
        query = TopNQuery.checked(num, candidates=candidates)
        return self.factors.recommend_for_all(USERS, query, excludeSeen)

    def recommendUsersForProducts(
        self, num: int, *, excludeSeen: Any = None, candidates: Any = None
    ) -> RDD[tuple[int, tuple[Rating, ...]]]:
        """Return the `num` best users for every product, best first.

        Parameters are those of `recommendProductsForUsers`, with users and products exchanged.
        """
        query = TopNQuery.checked(num, candidates=candidates)
        return self.factors.recommend_for_all(PRODUCTS, query, excludeSeen)

    def similarProducts(self, product: int, num: int) -> list[tuple[int, float]]:
        """Return the `num` products with the most similar factors, and the cosine similarities.

        The product itself is left out.
        """
        return self.factors.similar(PRODUCTS, product, num)

    def similarUsers(self, user: int, num: int) -> list[tuple[int, float]]:
        """Return the `num` users with the most similar factors, and the cosine similarities.

        The user itself is left out.
        """
        return self.factors.similar(USERS, user, num)

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

        Raises
        ------
        UnknownIdError
            If a product is unknown and `unknownProducts` is "raise".
        RddalsError
            Same errors as `rddals.ALS.train`.
        """
        users, products = self.factors.tables
        settings = fold_settings(
            self._settings,
            self.rank,
            lambda_=lambda_,
            alpha=alpha,
            nonnegative=nonnegative,
            duplicates=duplicates,
        )
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
            popular=self.factors.popular,
        )

    def userFeatures(self) -> RDD[tuple[int, Any]]:
        """Return ``(user, array('d'))`` pairs with the partitioning of the users."""
        return self.factors.tables[USERS].pairs()

    def productFeatures(self) -> RDD[tuple[int, Any]]:
        """Return ``(product, array('d'))`` pairs with the partitioning of the products."""
        return self.factors.tables[PRODUCTS].pairs()

    def collected_factors(self) -> tuple[FactorBlock, FactorBlock]:
        """Collect the user and product factors on the driver, by ascending id."""
        users, products = self.factors.tables
        return users.collect(self.rank), products.collect(self.rank)

    def toLocal(self) -> LocalModel:
        """Copy the model to the memory of this process; answers then take microseconds."""
        return LocalModel(*self.collected_factors(), self.factors.popular[PRODUCTS])

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
        sc = checked_location(sc, path)
        write_model(sc, path, self.rank, self.factors.tables, self._settings, self.factors.popular)

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
        sc = checked_location(sc, path)
        rank, users, products, settings, popular = read_model(sc, path)
        return cls(rank, users, products, settings=settings, popular=popular)

    def unpersist(self) -> None:
        """Release the factors and everything else that the model stores.

        Afterwards the model and the RDDs it returned cannot be used. Products that several models
        share after `foldIn` are released with the last of them.
        """
        self.factors.release()

    def id_bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the smallest and largest id of the users and of the products."""
        return self.factors.tables[USERS].bounds(), self.factors.tables[PRODUCTS].bounds()
