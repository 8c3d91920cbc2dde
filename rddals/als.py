"""Training on RDDs and DataFrames: ``ALS.train`` and ``ALS.trainImplicit``."""

from __future__ import annotations

import inspect
import secrets
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from rddals.config import Settings
from rddals.errors import SettingError
from rddals.kernels.half_step import chosen_kernels
from rddals.local_workers import is_local
from rddals.model.matrix import MatrixFactorizationModel
from rddals.rdds.factors import FactorTable
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.placement import Placements
from rddals.training.events import Listener
from rddals.training.train import train

Arguments = ParamSpec("Arguments")
Model = TypeVar("Model")


def _with_signature(train: Callable[Arguments, Model]) -> Callable[Arguments, Model]:
    """Add the arguments of a method to the error for arguments that do not fit."""
    signature = inspect.signature(train)
    by_position = [
        str(parameter.replace(annotation=parameter.empty))
        for name, parameter in signature.parameters.items()
        if name != "cls" and parameter.kind is not parameter.KEYWORD_ONLY
    ]

    @wraps(train)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Model:
        try:
            signature.bind(*arguments, **named)
        except TypeError as error:
            raise TypeError(
                f"{train.__qualname__}: {error}. As in MLlib, the arguments are "
                f"({', '.join(by_position)}). Those that MLlib does not have need their names."
            ) from None
        return train(*arguments, **named)

    return call


class ALS:
    """Alternating least squares (ALS) matrix factorisation.

    `train` and `trainImplicit` accept the arguments of ``pyspark.mllib.recommendation.ALS`` with
    the same meaning. Both also accept the keyword-only arguments below.

    Parameters
    ----------
    userPartitioner, productPartitioner : Partitioner, callable or str, optional
        Assignment of ids to blocks. A callable maps an id to its block. "hash" (the default)
        places ids as MLlib does. The other names are fitted to the ratings in one extra pass:
        "range" gives each block contiguous ids, "balanced" gives all blocks equal numbers of
        ratings, and "locality" puts users and products that share ratings in the same block
        (it collects all ids on the driver: 8 bytes per rating, about 100 while fitting).
    userBlocks, productBlocks : int
        Number of blocks of one side. -1 uses `blocks`.
    exchange : {"auto", "shuffle", "broadcast", "join", "local"}
        How factor rows reach the blocks that need them. "local" runs the whole training in one
        task and moves no rows. The exchange affects the data that is moved, not the model.
    precision : {"double", "single"}
        Floating-point precision in which the equations are accumulated and solved. Factors are
        float32 in both cases.
    init : {"mllib", "id"}
        Starting factors. "mllib" draws the same factors as MLlib for the same seed, ids and
        number of blocks. "id" draws the factor of each id from the seed and the id alone,
        independently of the number of blocks.
    duplicates : {"keep", "last", "mean", "sum"}
        Treatment of several ratings of the same product by the same user. "keep" trains on all
        of them, as MLlib does. "last" keeps the last one in the order of the RDD's partitions and
        their elements. "mean" and "sum" replace them with one rating.
    userCol, itemCol, ratingCol : str, optional
        Columns of a DataFrame. By default these are found by common names, such as userId, movieId
        and stars. Columns that Spark has numbered, such as ``_1``, are taken by position.
    checkpointInterval : int
        Number of iterations between two cuts of the lineage. The data goes to the checkpoint
        directory if one is set, and to the executors' storage otherwise.
    tol : float
        Relative improvement of the training loss below which training stops early.
    kernels : {"auto", "native", "numpy"}
        Implementation that solves the equations: compiled, or NumPy. "auto" uses the compiled one
        on every worker that has its library.
    initialModel : MatrixFactorizationModel, optional
        Model whose user factors the training starts from, regardless of `init`. Users that it
        does not know start as with ``init="id"``.
    listeners : sequence of callable, optional
        Callables that receive `LinksBuilt`, every `HalfStepDone` and `TrainingDone`. The default
        is a progress bar on a terminal and nothing elsewhere; an empty sequence disables it.
    """

    @classmethod
    @_with_signature
    def train(
        cls,
        ratings: Any,
        rank: int,
        iterations: int = 5,
        lambda_: float = 0.01,
        blocks: int = -1,
        nonnegative: bool = False,
        seed: int | None = None,
        *,
        userPartitioner: Any = None,
        productPartitioner: Any = None,
        userBlocks: int = -1,
        productBlocks: int = -1,
        exchange: str = "auto",
        precision: str = "double",
        init: str = "mllib",
        duplicates: str = "keep",
        userCol: str | None = None,
        itemCol: str | None = None,
        ratingCol: str | None = None,
        checkpointInterval: int = 10,
        tol: float = 0.0,
        kernels: str = "auto",
        initialModel: MatrixFactorizationModel | None = None,
        listeners: Sequence[Listener] | None = None,
    ) -> MatrixFactorizationModel:
        """Train on explicit ratings.

        Minimise ``sum (r - u.v)^2 + lambda (sum n_u |u|^2 + sum n_v |v|^2)``, where n is the
        number of ratings of a user or product [1]_.

        Parameters
        ----------
        ratings : RDD or DataFrame
            An RDD of ``Rating``, of tuples or lists ``(user, product, rating)``, or of column
            batches (a tuple of three NumPy arrays, or a `RatingBlock`); or a DataFrame. Ids must
            fit int32; use `rddals.indexer` for other keys.
        rank : int
            Length of each factor.
        iterations : int
            Number of iterations. Each one solves all products, then all users.
        lambda_ : float
            Weight of the penalty.
        blocks : int
            Number of blocks of each side. -1 uses the larger of the default parallelism and half
            the number of partitions of `ratings`.
        nonnegative : bool
            Whether to constrain all factors to be nonnegative.
        seed : int, optional
            Seed of the starting factors. The default is a random seed.

        Returns
        -------
        MatrixFactorizationModel
            The trained model.

        Raises
        ------
        SettingError
            If an argument is out of its range.
        RatingError, RatingTypeError
            If `ratings` is empty or contains elements that cannot be trained on.
        InconsistentRatingsError
            If `ratings` changes from one computation to the next.
        SingularSystemError
            If some equations have no unique solution, for example with ``lambda_=0`` and fewer
            ratings than `rank`.
        OverflowingRatingsError
            If the ratings are so large that the factors are not finite.

        References
        ----------
        .. [1] Zhou, Wilkinson, Schreiber and Pan, "Large-scale parallel collaborative filtering
           for the Netflix prize", AAIM 2008.
        """
        settings = Settings.checked(
            rank=rank,
            iterations=iterations,
            lambda_=lambda_,
            nonnegative=nonnegative,
            seed=_seed(seed),
            exchange=exchange,
            precision=precision,
            init=init,
            duplicates=duplicates,
            checkpoint_interval=checkpointInterval,
            tol=tol,
            kernels=kernels,
        )
        placements = Placements(
            blocks, userBlocks, productBlocks, userPartitioner, productPartitioner
        )
        columns = Columns.checked(userCol, itemCol, ratingCol)
        return _train(ratings, columns, settings, placements, initialModel, listeners)

    @classmethod
    @_with_signature
    def trainImplicit(
        cls,
        ratings: Any,
        rank: int,
        iterations: int = 5,
        lambda_: float = 0.01,
        blocks: int = -1,
        alpha: float = 0.01,
        nonnegative: bool = False,
        seed: int | None = None,
        *,
        userPartitioner: Any = None,
        productPartitioner: Any = None,
        userBlocks: int = -1,
        productBlocks: int = -1,
        exchange: str = "auto",
        precision: str = "double",
        init: str = "mllib",
        duplicates: str = "keep",
        userCol: str | None = None,
        itemCol: str | None = None,
        ratingCol: str | None = None,
        checkpointInterval: int = 10,
        tol: float = 0.0,
        kernels: str = "auto",
        initialModel: MatrixFactorizationModel | None = None,
        listeners: Sequence[Listener] | None = None,
    ) -> MatrixFactorizationModel:
        """Train on implicit feedback, such as counts of views or purchases.

        Minimise ``sum c (p - u.v)^2`` over *all* pairs, plus the penalty of `train` with n
        counting the ratings above zero [1]_. The preference p is 1 where r > 0 and 0 elsewhere;
        the confidence c is 1 + alpha |r|. A negative rating is a confident "no"; a rating of zero
        has no effect.

        Parameters
        ----------
        ratings, rank, iterations, lambda_, blocks, nonnegative, seed
            Same as in `train`.
        alpha : float
            Weight of a rating in its confidence.

        Returns
        -------
        MatrixFactorizationModel
            The trained model.

        Raises
        ------
        RddalsError
            Same errors as `train`.

        References
        ----------
        .. [1] Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets",
           ICDM 2008.
        """
        settings = Settings.checked(
            rank=rank,
            iterations=iterations,
            lambda_=lambda_,
            nonnegative=nonnegative,
            seed=_seed(seed),
            implicit=True,
            alpha=alpha,
            exchange=exchange,
            precision=precision,
            init=init,
            duplicates=duplicates,
            checkpoint_interval=checkpointInterval,
            tol=tol,
            kernels=kernels,
        )
        placements = Placements(
            blocks, userBlocks, productBlocks, userPartitioner, productPartitioner
        )
        columns = Columns.checked(userCol, itemCol, ratingCol)
        return _train(ratings, columns, settings, placements, initialModel, listeners)


def _train(
    ratings: Any,
    columns: Columns,
    settings: Settings,
    placements: Placements,
    initial_model: MatrixFactorizationModel | None,
    listeners: Sequence[Listener] | None,
) -> MatrixFactorizationModel:
    listeners = _default_listeners(settings) if listeners is None else _checked_listeners(listeners)
    source = rating_source(ratings, columns)
    if is_local(source.context):  # local workers use this installation: check it early
        chosen_kernels(settings.kernels)
    initial = _initial_factors(initial_model, settings)
    partitioners = placements.partitioners(source)
    factors, popular, history = train(source, partitioners, settings, listeners, initial)
    return MatrixFactorizationModel(
        settings.objective.rank, *factors, history=history, settings=settings, popular=popular
    )


def _seed(seed: Any) -> Any:
    return secrets.randbits(63) if seed is None else seed


def _initial_factors(
    model: MatrixFactorizationModel | None, settings: Settings
) -> tuple[FactorTable, FactorTable] | None:
    if model is None:
        return None
    if not isinstance(model, MatrixFactorizationModel):
        raise SettingError(
            f"initialModel must be a MatrixFactorizationModel of rddals but got {model!r}; "
            "to use an MLlib model, save() it and load it with rddals."
        )
    if model.rank != settings.objective.rank:
        raise SettingError(
            f"initialModel has rank {model.rank} but the requested rank is "
            f"{settings.objective.rank}; pass rank={model.rank}, or leave initialModel out."
        )
    return model.factors.tables


def _checked_listeners(listeners: Any) -> tuple[Listener, ...]:
    try:
        checked = tuple(listeners)
    except TypeError:
        checked = (None,)
    if not all(callable(listener) for listener in checked):
        raise SettingError(f"listeners must be a sequence of callables but got {listeners!r}.")
    return checked


def _default_listeners(settings: Settings) -> Sequence[Callable[[Any], None]]:
    if not sys.stderr.isatty():
        return ()
    try:
        from rddals.progress import ProgressBar
    except ImportError:  # rich is an optional dependency
        return ()
    return (ProgressBar(settings.iterations),)
