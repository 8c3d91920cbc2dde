"""Settings of one training run: frozen, and checked once, at the door."""

from __future__ import annotations

import math
import numbers
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from rddals.errors import SettingError

__all__ = [
    "BAD_RATINGS",
    "DUPLICATES",
    "EXCHANGES",
    "INITS",
    "KERNELS",
    "PRECISIONS",
    "Objective",
    "Settings",
    "StreamSettings",
]

Exchange = Literal["auto", "broadcast", "shuffle", "join", "local"]
Precision = Literal["double", "single"]
Init = Literal["mllib", "id"]
Duplicates = Literal["keep", "last", "mean", "sum"]
BadRatings = Literal["raise", "skip"]
Update = Literal["sgd", "als"]
Kernels = Literal["auto", "native", "numpy"]

EXCHANGES: tuple[str, ...] = get_args(Exchange)
PRECISIONS: tuple[str, ...] = get_args(Precision)
INITS: tuple[str, ...] = get_args(Init)
DUPLICATES: tuple[str, ...] = get_args(Duplicates)
BAD_RATINGS: tuple[str, ...] = get_args(BadRatings)
UPDATES: tuple[str, ...] = get_args(Update)
KERNELS: tuple[str, ...] = get_args(Kernels)

#: For a rating of a stream's batch, and for an id.
DEFAULT_LAMBDA = {"sgd": 0.05, "als": 8.0}
DEFAULT_GAMMA = 0.5
#: For users' and products' biases.
DEFAULT_BIAS_LAMBDA = (10.0, 2.0)

#: MLlib's: the k (k + 1) / 2 numbers of a system must fit a Java array.
MOST_RANK = 65_535


@dataclass(frozen=True, slots=True)
class Objective:
    """What a half-step minimises, and in which precision.

    Explicit: ``sum (r - u.v)^2 + lambda (sum n_u |u|^2 + sum n_i |v|^2)``, the weighted
    regularisation of Zhou et al. (2008). Implicit: Hu, Koren and Volinsky (2008) with
    confidence ``1 + alpha |r|`` and preference ``r > 0``.
    """

    rank: int
    lambda_: float
    implicit: bool = False
    alpha: float = 0.01
    nonnegative: bool = False
    precision: Precision = "double"
    #: Whether a row's penalty is weighed by its number of ratings.
    weighted: bool = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """The floating-point type that equations are accumulated and solved in."""
        return np.dtype(np.float64 if self.precision == "double" else np.float32)


@dataclass(frozen=True, slots=True)
class Settings:
    """One training run, apart from the ratings and where they are placed."""

    objective: Objective
    iterations: int = 5
    seed: int = 0
    exchange: Exchange = "auto"
    init: Init = "mllib"
    duplicates: Duplicates = "keep"
    checkpoint_interval: int = 10
    tol: float = 0.0
    kernels: Kernels = "auto"

    def document(self) -> dict[str, Any]:
        """These settings as plain numbers and words, which `checked` takes back."""
        document: dict[str, Any] = asdict(self)
        objective: dict[str, Any] = document.pop("objective")
        del objective["weighted"]  # as every training's is
        return document | objective

    @classmethod
    def checked(
        cls,
        *,
        rank: Any,
        iterations: Any,
        lambda_: Any,
        nonnegative: Any,
        seed: Any,
        implicit: bool = False,
        alpha: Any = 0.01,
        exchange: Any = "auto",
        precision: Any = "double",
        init: Any = "mllib",
        duplicates: Any = "keep",
        checkpoint_interval: Any = 10,
        tol: Any = 0.0,
        kernels: Any = "auto",
    ) -> Settings:
        """Settings from whatever a caller passed, or a `SettingError` that says what to pass."""
        rank = _rank(rank)
        iterations = _integer("Number of iterations", iterations)
        if iterations < 0:
            raise SettingError(
                f"Number of iterations must be nonnegative but got {iterations}; 5 to 20 is usual."
            )
        lambda_ = _lambda(lambda_)
        alpha = _real("Confidence parameter alpha", alpha)
        if implicit and alpha < 0:
            raise SettingError(
                f"Confidence parameter alpha must be nonnegative but got {alpha}; "
                "a negative confidence has no minimum."
            )
        checkpoint_interval = _integer("checkpointInterval", checkpoint_interval)
        if checkpoint_interval < 1 and checkpoint_interval != -1:
            raise SettingError(
                f"checkpointInterval must be positive, or -1 for the default, "
                f"but got {checkpoint_interval}."
            )
        tol = _real("tol", tol)
        if tol < 0:
            raise SettingError(f"tol must be nonnegative but got {tol}; 0 runs every iteration.")
        return cls(
            objective=Objective(
                rank=rank,
                lambda_=lambda_,
                implicit=implicit,
                alpha=alpha,
                nonnegative=_boolean("nonnegative", nonnegative),
                precision=_choice("precision", precision, PRECISIONS),
            ),
            iterations=iterations,
            seed=_seed(seed),
            exchange=_choice("exchange", exchange, EXCHANGES),
            init=_choice("init", init, INITS),
            duplicates=_choice("duplicates", duplicates, DUPLICATES),
            checkpoint_interval=10 if checkpoint_interval == -1 else checkpoint_interval,
            tol=tol,
            kernels=_choice("kernels", kernels, KERNELS),
        )


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How a stream is learned, apart from the ratings and where they are placed.

    The penalty is ``lambda_`` times the squares of the rows of every rating for "sgd", and of every
    id for "als", where biases have weights of their own: users' and products'.
    """

    rank: int = 10
    iterations: int = 1
    lambda_: float = 0.05
    gamma: float = DEFAULT_GAMMA
    bias_lambda: tuple[float, float] = DEFAULT_BIAS_LAMBDA
    update: Update = "sgd"
    seed: int = 0
    exchange: Exchange = "auto"
    bad_ratings: BadRatings = "raise"

    def document(self) -> dict[str, Any]:
        """These settings as plain numbers and words, which `checked` takes back."""
        unused = "gamma" if self.update == "als" else "bias_lambda"
        return {name: value for name, value in asdict(self).items() if name != unused}

    @classmethod
    def checked(
        cls,
        *,
        rank: Any,
        iterations: Any,
        lambda_: Any,
        seed: Any,
        gamma: Any = None,
        bias_lambda: Any = None,
        update: Any = "sgd",
        exchange: Any = "auto",
        bad_ratings: Any = "raise",
    ) -> StreamSettings:
        """Settings from whatever a caller passed, or a `SettingError` that says what to pass."""
        iterations = _integer("Number of iterations", iterations)
        if iterations < 1:
            raise SettingError(
                f"Number of iterations must be positive but got {iterations}; "
                "1 learns each batch once."
            )
        update = _choice("update", update, UPDATES)
        for name, value in (("gamma", gamma), ("biasLambda", bias_lambda)):
            if value is not None and (name == "gamma") != (update == "sgd"):
                raise SettingError(
                    f"{name}={value!r} has no part in update={update!r}; leave it out."
                )
        lambda_ = _lambda(DEFAULT_LAMBDA[update] if lambda_ is None else lambda_)
        if update == "als" and lambda_ == 0:
            raise SettingError(
                "Regularization parameter must be positive for update='als' but got 0: an id's "
                "first ratings are fewer than the rank. 5 to 20 is usual."
            )
        gamma = _real("Learning rate gamma", DEFAULT_GAMMA if gamma is None else gamma)
        if gamma <= 0:
            raise SettingError(
                f"Learning rate gamma must be positive but got {gamma}; 0.3 to 0.7 is usual."
            )
        return cls(
            rank=_rank(rank),
            iterations=iterations,
            lambda_=lambda_,
            gamma=gamma,
            bias_lambda=_bias_lambda(bias_lambda),
            update=update,
            seed=_seed(seed),
            exchange=_choice("exchange", exchange, EXCHANGES),
            bad_ratings=_choice("badRatings", bad_ratings, BAD_RATINGS),
        )


def block_count(name: str, value: Any) -> int | None:
    """The number of blocks asked for; None where MLlib's -1 leaves the choice to us."""
    blocks = _integer(name, value)
    if blocks != -1 and blocks <= 0:
        raise SettingError(f"{name} must be -1 or positive but got {blocks}.")
    return None if blocks == -1 else blocks


def _rank(value: Any) -> int:
    rank = _integer("Rank of the feature matrices", value)
    if rank <= 0:
        raise SettingError(
            f"Rank of the feature matrices must be positive but got {rank}; 10 to 100 is usual."
        )
    if rank > MOST_RANK:
        raise SettingError(
            f"Rank of the feature matrices must be at most {MOST_RANK} but got {rank}; "
            "10 to 100 is usual."
        )
    return rank


def _lambda(value: Any) -> float:
    lambda_ = _real("Regularization parameter", value)
    if lambda_ < 0:
        raise SettingError(
            f"Regularization parameter must be nonnegative but got {lambda_}; 0.01 to 0.1 is usual."
        )
    return lambda_


def _bias_lambda(value: Any) -> tuple[float, float]:
    if value is None:
        return DEFAULT_BIAS_LAMBDA
    try:
        weights = [_real("biasLambda", weight) for weight in value]
    except TypeError:
        weights = []
    if len(weights) != 2 or min(weights) <= 0:
        raise SettingError(
            "biasLambda must be two positive numbers, for users' and for products' biases, but got "
            f"{value!r}; (10, 2) is usual."
        )
    return weights[0], weights[1]


def _is_real(value: Any) -> bool:
    """Whether `value` is a finite number of any kind; a truth value is none."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        return False
    if isinstance(value, numbers.Rational):  # integers among them; none is too large
        return True
    return math.isfinite(value)


def _integer(name: str, value: Any) -> int:
    if _is_real(value) and int(value) == value:
        return int(value)
    raise SettingError(f"{name} must be an integer but got {value!r}.")


def _real(name: str, value: Any) -> float:
    if _is_real(value):
        with suppress(OverflowError):
            return float(value)
    raise SettingError(f"{name} must be a finite number but got {value!r}.")


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise SettingError(f"{name} must be True or False but got {value!r}.")


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    if isinstance(value, str) and value in choices:
        return value
    raise SettingError(f"{name} must be {' or '.join(map(repr, choices))} but got {value!r}.")


def _seed(value: Any) -> int:
    """Any finite number, taken modulo 2^64; floats truncate towards zero."""
    if _is_real(value):
        return int(value) % (1 << 64)
    raise SettingError(f"seed must be a number but got {value!r}; leave it out for a random one.")
