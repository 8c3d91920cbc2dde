"""What a training tells its listeners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rddals.exchange import Choice, HalfStepSizes

__all__ = ["HalfStepDone", "LinksBuilt", "Listener", "TrainingDone"]


@dataclass(frozen=True, slots=True)
class LinksBuilt:
    """The ratings are read and both sides' link blocks are cached.

    Attributes
    ----------
    ratings, users, products : int
        How many there are.
    exchange : Choice
        The exchange that is used, and why.
    sizes : pair of HalfStepSizes
        Of the half-steps in which users, and products, send.
    seconds : float
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
        From 1.
    side : str
        "products" or "users".
    loss : float
        The training objective with the new factors: squared errors, weighted if implicit, plus
        both sides' penalties.
    seconds : float
        As the driver sees it; for ``exchange="local"``, as its task does.
    task_seconds : dict of str to float
        Summed over the blocks: "receive", "gather", "gram" and "solve", and "other" for the rest
        of the step. The compiled kernels are timed as "solve" alone.
    broadcast_id : int or None
        Spark's number for the broadcast that carries the new factors, if one does; events name it
        so.
    kernels : str
        The kernels that ran: "native" or "numpy", or both where executors differ.
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
    """The factors are in place; sent also when training stops early because of `tol`."""

    iterations: int
    loss: float | None
    seconds: float


Listener = Callable[[Any], None]
