"""What a training moves on ratings of which only the size and the degrees are known.

Ids are taken to be hashed, so that a row with d ratings is needed by B (1 - (1 - 1/B)^d) of B
blocks on average; all else are sums and means of that over a distribution of degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from rddals.blocks.sides import SIDE_NAMES
from rddals.config import Settings
from rddals.errors import SettingError
from rddals.exchange.choice import HalfStepSizes, choose
from rddals.kernels.calibration import seconds_per_flop
from rddals.kernels.flops import flops
from rddals.planning.forecast import (
    FLOAT,
    NAMES,
    Load,
    Plan,
    PlannedHalfStep,
    PlannedPlacement,
    PlannedSide,
    checked_exchanges,
    half_step,
    link_bytes,
    several,
)
from rddals.planning.message_size import shuffled_bytes

__all__ = [
    "ExpectedSide",
    "degree_quantiles",
    "expected_half_steps",
    "expected_load",
    "expected_plan",
]

#: Degrees that stand for a whole distribution, all equally likely.
QUANTILES = (np.arange(10_000) + 0.5) / 10_000

#: Blocks of either side for each executor, where nothing is said.
BLOCKS = np.array([1, 4, 16])

Degrees = NDArray[np.float64]


def _lognormal(sigma: float) -> Degrees:
    return np.asarray(np.exp(sigma * ndtri(QUANTILES)))


def _pareto(exponent: float) -> Degrees:
    return np.asarray((1 - QUANTILES) ** (-1 / exponent))


#: Shapes of degrees, of some mean, and the least that their parameter may be.
SHAPES: dict[str, tuple[Callable[[float], Degrees], float]] = {
    "lognormal": (_lognormal, 0.0),
    "pareto": (_pareto, 1.0),
}


def degree_quantiles(text: str) -> Degrees:
    """Degrees as asked for: "constant", "lognormal:SIGMA" or "pareto:EXPONENT", of mean 1.

    Raises
    ------
    SettingError
        For anything else.
    """
    name, _, parameter = str(text).partition(":")
    if name == "constant" and not parameter:
        return np.ones(1)
    if name in SHAPES:
        shape, least = SHAPES[name]
        try:
            value = float(parameter)
        except ValueError:
            value = np.nan
        if least < value <= 100:
            drawn = shape(value)
            of_mean_1: Degrees = drawn / drawn.mean()
            return of_mean_1
    raise SettingError(
        f"degrees must be constant, lognormal:SIGMA with SIGMA above 0, or pareto:EXPONENT with "
        f"EXPONENT above 1 (both at most 100), but got {text!r}."
    )


@dataclass(frozen=True, slots=True)
class ExpectedSide:
    """One side of ratings that nobody has.

    Attributes
    ----------
    ids, blocks : int
    degrees : ndarray of float64
        Ratings per id, all entries equally likely.
    """

    ids: int
    blocks: int
    degrees: Degrees

    @classmethod
    def of(cls, ids: int, ratings: int, others: int, blocks: int, shape: Degrees) -> ExpectedSide:
        """A side with so many ratings in all, none of its ids with more than there are others."""
        mean = ratings / ids
        low, high = 0.0, others / shape.min()
        for _ in range(100):  # bisection: the greater the scale, the greater the mean
            scale = (low + high) / 2
            degrees = np.clip(scale * shape, 1.0, others)
            low, high = (scale, high) if degrees.mean() < mean else (low, scale)
        return cls(ids, blocks, degrees)

    def needed(self, blocks: int) -> int:
        """Rows that so many blocks of the other side need together."""
        # 1 - (1 - 1/B)^d, without the cancellation of a large B
        share = -np.expm1(self.degrees * np.log1p(-1 / blocks)) if blocks > 1 else 1.0
        return round(float(np.mean(blocks * share)) * self.ids)


def expected_half_steps(
    exchange: str, pair: tuple[ExpectedSide, ExpectedSide], sizes: tuple[HalfStepSizes, ...]
) -> tuple[PlannedHalfStep, PlannedHalfStep]:
    """The half-steps in which users, and products, send."""
    users, products = (
        _expected(exchange, sender, side.blocks * other.blocks, own)
        for sender, side, other, own in zip(SIDE_NAMES, pair, pair[::-1], sizes, strict=True)
    )
    return users, products


def _expected(exchange: str, sender: str, pairs: int, sizes: HalfStepSizes) -> PlannedHalfStep:
    # Rows are spread over pairs of blocks as by Poisson: some get none.
    filled = -np.expm1(-sizes.needed_rows / pairs)
    messages = max(1, round(pairs * filled))
    rows = np.array([max(1, round(sizes.needed_rows / messages))])
    envelope = int(shuffled_bytes(rows, sizes.rank)[0]) - FLOAT * sizes.rank * int(rows[0])
    shuffled = FLOAT * sizes.rank * sizes.needed_rows + envelope * messages
    return half_step(exchange, sender, sizes, messages, shuffled)


def expected_load(
    solved: ExpectedSide, source: ExpectedSide, rank: int, seconds_per_flop: float
) -> PlannedSide:
    """How the work of solving a side is spread over its blocks.

    A block's sum over its ids is taken to be normal; the greatest of B such is above the mean by
    sqrt(2 ln B) standard deviations.
    """
    own = solved.ids / solved.blocks
    spread = np.sqrt(2 * np.log(solved.blocks)) * np.sqrt(own)

    def load(values: Degrees) -> Load:
        mean = own * values.mean()
        return Load(float(mean), float(mean + spread * values.std()))

    ratings = load(solved.degrees)
    received = source.needed(solved.blocks) / solved.blocks
    sent = solved.needed(source.blocks) / solved.blocks
    links = Load(
        *(
            float(link_bytes(own, count, received, sent, source.blocks))
            for count in (ratings.mean, ratings.most)
        )
    )
    rows = FLOAT * rank * (received + own)
    seconds = load(flops(solved.degrees, rank))
    return PlannedSide(
        ratings=ratings,
        rows=Load(received, received),
        seconds=Load(seconds.mean * seconds_per_flop, seconds.most * seconds_per_flop),
        link_bytes=links,
        task_bytes=Load(links.mean + rows, links.most + rows),
    )


def expected_plan(
    *,
    users: int,
    products: int,
    ratings: int,
    rank: int,
    executors: int,
    degrees: str = "lognormal:1",
    exchanges: Sequence[str] | str = NAMES,
    blocks: int | Sequence[int] | None = None,
) -> Plan:
    """What trainings are expected to move on ratings that are not there.

    Ids are hashed. How bytes, rows and loads follow from the arguments is derived in
    ``docs/explanation/exchange.md``.

    Parameters
    ----------
    users, products, ratings : int
        How many there are.
    rank : int
    executors : int
    degrees : str
        How ratings are spread over the ids of either side: "constant", "lognormal:SIGMA" or
        "pareto:EXPONENT". No id has fewer than one or more than there are ids to rate.
    exchanges : sequence of {"shuffle", "broadcast", "join", "local"}
    blocks : int or sequence of int, optional
        Blocks of either side; 1, 4 and 16 for each executor, if left out.

    Returns
    -------
    Plan

    Raises
    ------
    SettingError
        For numbers that cannot be, as more ratings than pairs of users and products.
    """
    began = perf_counter()
    sizes = {"users": users, "products": products, "ratings": ratings, "executors": executors}
    for name, value in sizes.items():
        sizes[name] = _count(name, value)
    rank = Settings.checked(
        rank=rank, iterations=1, lambda_=0.01, nonnegative=False, seed=0
    ).objective.rank
    users, products, ratings, executors = sizes.values()
    if not max(users, products) <= ratings <= users * products:
        raise SettingError(
            f"ratings must be from {max(users, products)} (one for every id) to "
            f"{users * products} (one for every pair) but got {ratings}."
        )
    shape, names = degree_quantiles(degrees), checked_exchanges(exchanges)
    counts = [_count("blocks", count) for count in several(blocks or executors * BLOCKS)]
    speed = seconds_per_flop(rank)
    placements = []
    for count in counts:
        pair = (
            ExpectedSide.of(users, ratings, products, count, shape),
            ExpectedSide.of(products, ratings, users, count, shape),
        )
        own = tuple(
            HalfStepSizes(side.ids, side.needed(count), ratings, rank, executors) for side in pair
        )
        placements.append(
            PlannedPlacement(
                partitioner="hash",
                blocks=(count, count),
                fit_seconds=0.0,
                users=expected_load(pair[0], pair[1], rank, speed),
                products=expected_load(pair[1], pair[0], rank, speed),
                half_steps={name: expected_half_steps(name, pair, own) for name in names},
                choice=choose(own[0], own[1]),
            )
        )
    seconds = perf_counter() - began
    return Plan(rank, ratings, users, products, executors, tuple(placements), seconds)


def _count(name: str, value: Any) -> int:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if number and 1 <= value < np.inf and value == int(value):
        return int(value)
    raise SettingError(f"{name} must be a positive whole number but got {value!r}.")
