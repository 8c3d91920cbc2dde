"""Events that training sends to its listeners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rddals.exchange import Choice, HalfStepSizes


@dataclass(frozen=True, slots=True)
class LinksBuilt:
    """The ratings are read, and both sides' link blocks are cached.

    Attributes
    ----------
    ratings, users, products : int
        Numbers of ratings, users and products.
    exchange : Choice
        The exchange, and the reason for it.
    sizes : pair of HalfStepSizes
        Sizes of the half-steps in which users send, and in which products send.
    seconds : float
        Time since the start of training.
    """

    ratings: int
    users: int
    products: int
    exchange: Choice
    sizes: tuple[HalfStepSizes, HalfStepSizes]
    seconds: float


@dataclass(frozen=True, slots=True)
class HalfStepDone:
    """One side has new factors.

    Attributes
    ----------
    iteration : int
        Number of the iteration, from 1.
    side : str
        "products" or "users".
    loss : float
        The training objective with the new factors: squared errors, weighted if implicit, plus
        both sides' penalties.
    seconds : float
        Time of the half-step on the driver; with ``exchange="local"``, in the task.
    task_seconds : dict of str to float
        Summed over the blocks: "receive", "gather", "gram" and "solve", and "other" for the rest
        of the step. The compiled kernels are timed as "solve" alone.
    broadcast_id : int or None
        Spark's number of the broadcast that carries the new factors, if there is one. Spark's
        events have the same number.
    kernels : str
        Kernels that ran: "native" or "numpy", or both if executors differ.
    """

    iteration: int
    side: str
    loss: float
    seconds: float
    task_seconds: dict[str, float]
    broadcast_id: int | None = None
    kernels: str = ""


@dataclass(frozen=True, slots=True)
class TrainingDone:
    """All factors are computed; sent also when `tol` stops the training early."""

    iterations: int
    loss: float | None
    seconds: float


Listener = Callable[[Any], None]
