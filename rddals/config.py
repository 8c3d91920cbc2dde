"""Validated, immutable settings of a training run or a stream."""

from __future__ import annotations

import math
import numbers
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from rddals.errors import SettingError

Exchange = Literal["auto", "broadcast", "shuffle", "join", "local"]
Precision = Literal["double", "single"]
Init = Literal["mllib", "id"]
Duplicates = Literal["keep", "last", "mean", "sum"]
BadRatings = Literal["raise", "skip"]
Update = Literal["sgd", "als"]
Kernels = Literal["auto", "native", "numpy"]

#: Default penalty of a stream. "sgd" applies it to each rating of a batch, "als" to each id.
DEFAULT_LAMBDA = {"sgd": 0.05, "als": 8.0}
DEFAULT_GAMMA = 0.5
#: Penalties of the user biases and of the product biases.
DEFAULT_BIAS_LAMBDA = (10.0, 2.0)

#: MLlib's limit: the k (k + 1) / 2 numbers of a system must fit a Java array.
MAX_RANK = 65_535


@dataclass(frozen=True, slots=True)
class Objective:
    """Function that a half-step minimises, and the precision of the computation.

    Explicit feedback: ``sum (r - u.v)^2 + lambda (sum n_u |u|^2 + sum n_i |v|^2)``, the weighted
    regularisation of Zhou et al. (2008). Implicit feedback: the objective of Hu, Koren and
    Volinsky (2008) with confidence ``1 + alpha |r|`` and preference ``r > 0``.
    """

    rank: int
    lambda_: float
    implicit: bool = False
    alpha: float = 0.01
    nonnegative: bool = False
    precision: Precision = "double"
    #: Whether the penalty of a row is multiplied by its number of ratings.
    weighted: bool = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Floating-point type in which equations are accumulated and solved."""
        return np.dtype(np.float64 if self.precision == "double" else np.float32)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one training run, except the ratings and their placement."""

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
        """Return the settings as a JSON-compatible dictionary that `checked` accepts."""
        document: dict[str, Any] = asdict(self)
        objective: dict[str, Any] = document.pop("objective")
        del objective["weighted"]  # always True in training
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
        """Validate arguments and return the settings; raise `SettingError` otherwise."""
        rank = _rank(rank)
        iterations = _integer("Number of iterations", iterations)
        _check_sign("Number of iterations", iterations, "nonnegative", "5 to 20 is usual")
        lambda_ = _lambda(lambda_)
        alpha = _real("Confidence parameter alpha", alpha)
        if implicit:
            hint = "with a negative confidence the loss has no minimum"
            _check_sign("Confidence parameter alpha", alpha, "nonnegative", hint)
        checkpoint_interval = _integer("checkpointInterval", checkpoint_interval)
        if checkpoint_interval < 1 and checkpoint_interval != -1:
            raise SettingError(
                f"checkpointInterval must be positive, or -1 for the default, "
                f"but got {checkpoint_interval}."
            )
        tol = _real("tol", tol)
        _check_sign("tol", tol, "nonnegative", "0 runs every iteration")
        return cls(
            objective=Objective(
                rank=rank,
                lambda_=lambda_,
                implicit=implicit,
                alpha=alpha,
                nonnegative=_boolean("nonnegative", nonnegative),
                precision=_choice("precision", precision, Precision),
            ),
            iterations=iterations,
            seed=_seed(seed),
            exchange=_choice("exchange", exchange, Exchange),
            init=_choice("init", init, Init),
            duplicates=_choice("duplicates", duplicates, Duplicates),
            checkpoint_interval=10 if checkpoint_interval == -1 else checkpoint_interval,
            tol=tol,
            kernels=_choice("kernels", kernels, Kernels),
        )


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Settings of a stream, except the ratings and their placement.

    For "sgd", ``lambda_`` multiplies the squared rows of every rating. For "als", it multiplies the
    squared row of every id, and ``bias_lambda`` holds the separate weights of the user biases and
    of the product biases.
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
        """Return the settings as a JSON-compatible dictionary that `checked` accepts."""
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
        """Validate arguments and return the settings; raise `SettingError` otherwise."""
        iterations = _integer("Number of iterations", iterations)
        _check_sign("Number of iterations", iterations, "positive", "1 learns each batch once")
        update = _choice("update", update, Update)
        for name, value in (("gamma", gamma), ("biasLambda", bias_lambda)):
            if value is not None and (name == "gamma") != (update == "sgd"):
                raise SettingError(
                    f"{name}={value!r} is not used with update={update!r}; leave it out."
                )
        lambda_ = _lambda(DEFAULT_LAMBDA[update] if lambda_ is None else lambda_)
        if update == "als" and lambda_ == 0:
            raise SettingError(
                "Regularization parameter must be positive for update='als' but got 0: a new id "
                "has fewer ratings than the rank. 5 to 20 is usual."
            )
        gamma = _real("Learning rate gamma", DEFAULT_GAMMA if gamma is None else gamma)
        _check_sign("Learning rate gamma", gamma, "positive", "0.3 to 0.7 is usual")
        return cls(
            rank=_rank(rank),
            iterations=iterations,
            lambda_=lambda_,
            gamma=gamma,
            bias_lambda=_bias_lambda(bias_lambda),
            update=update,
            seed=_seed(seed),
            exchange=_choice("exchange", exchange, Exchange),
            bad_ratings=_choice("badRatings", bad_ratings, BadRatings),
        )


def block_count(name: str, value: Any) -> int | None:
    """Return the requested number of blocks, or None for MLlib's -1 (automatic choice)."""
    blocks = _integer(name, value)
    if blocks != -1 and blocks <= 0:
        raise SettingError(f"{name} must be -1 or positive but got {blocks}.")
    return None if blocks == -1 else blocks


def _rank(value: Any) -> int:
    rank = _integer("Rank of the feature matrices", value)
    _check_sign("Rank of the feature matrices", rank, "positive", "10 to 100 is usual")
    if rank > MAX_RANK:
        raise SettingError(
            f"Rank of the feature matrices must be at most {MAX_RANK} but got {rank}; "
            "10 to 100 is usual."
        )
    return rank


def _lambda(value: Any) -> float:
    lambda_ = _real("Regularization parameter", value)
    _check_sign("Regularization parameter", lambda_, "nonnegative", "0.01 to 0.1 is usual")
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
            "biasLambda must be two positive numbers, for user biases and product biases, but got "
            f"{value!r}; (10, 2) is usual."
        )
    return weights[0], weights[1]


def _check_sign(
    name: str, value: float, sign: Literal["positive", "nonnegative"], hint: str
) -> None:
    if value < 0 or (sign == "positive" and value == 0):
        raise SettingError(f"{name} must be {sign} but got {value}; {hint}.")


def _is_real(value: Any) -> bool:
    """Return whether `value` is a finite real number; booleans are not numbers here."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        return False
    if isinstance(value, numbers.Rational):  # includes integers of any size, all of them finite
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


def _choice(name: str, value: Any, kind: Any) -> Any:
    choices = get_args(kind)
    if isinstance(value, str) and value in choices:
        return value
    raise SettingError(f"{name} must be {' or '.join(map(repr, choices))} but got {value!r}.")


def _seed(value: Any) -> int:
    """Return any finite number modulo 2^64; floats are truncated towards zero."""
    if _is_real(value):
        return int(value) % (1 << 64)
    raise SettingError(f"seed must be a number but got {value!r}; leave it out for a random one.")
