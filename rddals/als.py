"""The front door: ``ALS.train`` and ``ALS.trainImplicit``."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rddals.config import Settings
from rddals.errors import SettingError
from rddals.kernels.half_step import chosen_kernels
from rddals.model.matrix import MatrixFactorizationModel
from rddals.rdds.context import is_local
from rddals.rdds.factors import FactorTable
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.placement import Placements
from rddals.training.events import Listener
from rddals.training.train import train

__all__ = ["ALS"]


class ALS:
    """Alternating least squares matrix factorisation.

    The methods take what those of ``pyspark.mllib.recommendation.ALS`` take, with the same
    meaning. What goes beyond is by keyword only, and the same for both:

    Parameters
    ----------
    userPartitioner, productPartitioner : Partitioner, callable or str, optional
        Where ids live. A callable takes an id and gives its block. "hash" (the default) places
        ids as MLlib does; the others are fitted to the ratings in one more pass over them:
        "range" gives contiguous ids, "balanced" equal numbers of ratings per block, "locality"
        blocks that share as many ratings as can be (all ids pass through the driver, 8 bytes a
        rating, and some 100 while it fits).
    userBlocks, productBlocks : int
        Blocks of either side; -1 takes `blocks`.
    exchange : {"auto", "shuffle", "broadcast", "join", "local"}
        How factor rows reach the blocks that need them; "local" runs everything in one task, so
        that none need to be moved. It changes what is moved, not the model.
    precision : {"double", "single"}
        In which precision equations are accumulated and solved. Factors are float32 either way.
    init : {"mllib", "id"}
        Starting factors: "mllib" draws what MLlib draws for the same seed, ids and number of
        blocks; "id" draws each id's from the seed and the id alone, however many blocks there
        are.
    duplicates : {"keep", "last", "mean", "sum"}
        What becomes of several ratings of a product by a user: "keep" trains on all, as MLlib
        does; "last" on the last in the order of the RDD's partitions and their elements; "mean"
        and "sum" on one in their place.
    userCol, itemCol, ratingCol : str, optional
        Columns of a DataFrame. Without any: those named user, item (or product) and rating, if
        there are all three, else the first three.
    checkpointInterval : int
        Iterations between two cuts of the lineage, to the checkpoint directory if one is set,
        otherwise to the executors' storage.
    tol : float
        Stop once an iteration improves the training loss by less than this fraction of it.
    kernels : {"auto", "native", "numpy"}
        Which implementation solves the equations: the compiled one, or the one in NumPy. "auto"
        takes the compiled one on every worker that has its library.
    initialModel : MatrixFactorizationModel, optional
        Start from its user factors, whatever `init` says; users it does not know start as "id".
    listeners : sequence of callable, optional
        Each is called with `LinksBuilt`, every `HalfStepDone` and `TrainingDone`. By default a
        progress bar on a terminal and nothing elsewhere; an empty sequence silences it.
    """

    @classmethod
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

        Minimises ``sum (r - u.v)^2 + lambda (sum n_u |u|^2 + sum n_v |v|^2)``, where n counts the
        ratings of a user or product [1]_.

        Parameters
        ----------
        ratings : RDD or DataFrame
            An RDD of ``Rating``, of tuples or lists ``(user, product, rating)``, or of batches in
            columns (a tuple of three NumPy arrays, or a `RatingBlock`), or a DataFrame. Ids fit
            int32; `rddals.indexer` is for others.
        rank : int
            Length of a factor.
        iterations : int
            Rounds of solving products, then users.
        lambda_ : float
            Weight of the penalty.
        blocks : int
            Blocks of each side; -1 takes the larger of the default parallelism and half the
            partitions of `ratings`.
        nonnegative : bool
            Keep every factor nonnegative.
        seed : int, optional
            For the starting factors; drawn if left out.

        Returns
        -------
        MatrixFactorizationModel

        Raises
        ------
        SettingError
            If a setting is out of its range.
        RatingError, RatingTypeError
            If `ratings` is empty or holds something that cannot be trained on.
        InconsistentRatingsError
            If `ratings` changes from one computation to the next.
        SingularSystemError
            If some equations have no unique solution, as with ``lambda_=0`` and fewer ratings
            than `rank`.
        OverflowingRatingsError
            If ratings are so large that factors are not finite.

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

        Minimises ``sum c (p - u.v)^2`` over *all* pairs, with preference p = 1 where r > 0, else
        0, and confidence c = 1 + alpha |r|, plus the penalty of `train` with n counting the
        ratings above zero [1]_. A negative rating is a confident "no"; a rating of zero has no
        effect.

        Parameters
        ----------
        ratings, rank, iterations, lambda_, blocks, nonnegative, seed
            As in `train`.
        alpha : float
            Weight of a rating in its confidence.

        Returns
        -------
        MatrixFactorizationModel

        Raises
        ------
        RddalsError
            As in `train`.

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
    listeners = _default_listeners(settings) if listeners is None else _checked(listeners)
    source = rating_source(ratings, columns)
    if is_local(source.context):  # workers have what is here
        chosen_kernels(settings.kernels)
    known = _known_factors(initial_model, settings)
    partitioners = placements.partitioners(source)
    trained = train(source, partitioners, settings, listeners, known)
    return MatrixFactorizationModel(
        settings.objective.rank,
        FactorTable(trained.user_factors, partitioners[0]),
        FactorTable(trained.product_factors, partitioners[1]),
        history=trained.history,
        settings=settings,
        popular=trained.popular,
    )


def _seed(seed: Any) -> Any:
    return secrets.randbits(63) if seed is None else seed


def _known_factors(
    model: MatrixFactorizationModel | None, settings: Settings
) -> tuple[FactorTable, FactorTable] | None:
    if model is None:
        return None
    if not isinstance(model, MatrixFactorizationModel):
        raise SettingError(
            f"initialModel must be a MatrixFactorizationModel of rddals but got {model!r}; "
            "save() one of MLlib and load it with rddals."
        )
    if model.rank != settings.objective.rank:
        raise SettingError(
            f"initialModel has rank {model.rank} but rank {settings.objective.rank} was asked for; "
            "a warm start keeps the rank."
        )
    return model._factors()


def _checked(listeners: Any) -> tuple[Listener, ...]:
    try:
        listed = tuple(listeners)
    except TypeError:
        listed = (None,)
    if not all(callable(listener) for listener in listed):
        raise SettingError(f"listeners must be a sequence of callables but got {listeners!r}.")
    return listed


def _default_listeners(settings: Settings) -> Sequence[Callable[[Any], None]]:
    if not sys.stderr.isatty():
        return ()
    try:
        from rddals.progress import ProgressBar
    except ImportError:  # the extra that draws it is not installed
        return ()
    return (ProgressBar(settings.iterations),)
