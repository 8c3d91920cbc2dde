"""Expected data movement of a training, from the number of ratings and the degrees alone.

Ids are assumed to be hashed, so on average a row with d ratings is needed by B (1 - (1 - 1/B)^d) of
B blocks. All other figures are sums and means of this over a distribution of degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

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
    PlannedPlacement,
    PlannedSide,
    as_list,
    checked_exchanges,
    half_steps,
    link_bytes,
)
from rddals.planning.message_size import shuffled_bytes

#: Quantiles that represent a distribution of degrees, all equally likely.
QUANTILES = (np.arange(10_000) + 0.5) / 10_000

#: Default numbers of blocks of either side, per executor.
BLOCKS = np.array([1, 4, 16])

Degrees = NDArray[np.float64]


def _lognormal(sigma: float) -> Degrees:
    return np.asarray(np.exp(sigma * ndtri(QUANTILES)))


def _pareto(exponent: float) -> Degrees:
    return np.asarray((1 - QUANTILES) ** (-1 / exponent))


#: Degree distributions of any mean, and the exclusive lower bound of their parameter.
SHAPES: dict[str, tuple[Callable[[float], Degrees], float]] = {
    "lognormal": (_lognormal, 0.0),
    "pareto": (_pareto, 1.0),
}


def degree_quantiles(text: str) -> Degrees:
    """Parse "constant", "lognormal:SIGMA" or "pareto:EXPONENT" to degrees with mean 1.

    Any other text raises `SettingError`.
    """
    name, _, parameter = str(text).partition(":")
    if name == "constant" and not parameter:
        return np.ones(1)
    if name in SHAPES:
        shape, bound = SHAPES[name]
        try:
            value = float(parameter)
        except ValueError:
            value = np.nan
        if bound < value <= 100:
            degrees = shape(value)
            return degrees / degrees.mean()
    raise SettingError(
        f"degrees must be constant, lognormal:SIGMA with SIGMA above 0, or pareto:EXPONENT with "
        f"EXPONENT above 1 (both at most 100), but got {text!r}."
    )


@dataclass(frozen=True, slots=True)
class ExpectedSide:
    """One side of hypothetical ratings.

    Attributes
    ----------
    ids, blocks : int
        Number of ids, and number of blocks.
    degrees : ndarray of float64
        Ratings per id; all entries are equally likely.
    """

    ids: int
    blocks: int
    degrees: Degrees

    @classmethod
    def of(cls, ids: int, ratings: int, others: int, blocks: int, shape: Degrees) -> ExpectedSide:
        """Build a side whose degrees are scaled to add up to `ratings`, each at most `others`."""
        mean = ratings / ids
        low, high = 0.0, others / shape.min()
        for _ in range(100):  # bisection: the mean increases with the scale
            scale = (low + high) / 2
            degrees = np.clip(scale * shape, 1.0, others)
            low, high = (scale, high) if degrees.mean() < mean else (low, scale)
        return cls(ids, blocks, degrees)

    def needed_rows(self, blocks: int) -> int:
        """Return the expected rows that all `blocks` of the other side need."""
        # 1 - (1 - 1/B)^d, without cancellation for large B
        share = -np.expm1(self.degrees * np.log1p(-1 / blocks)) if blocks > 1 else 1.0
        return round(float(np.mean(blocks * share)) * self.ids)


def _expected_traffic(sizes: HalfStepSizes, pairs: int) -> tuple[int, int]:
    """Return the messages and bytes that a shuffle sends between this number of pairs of blocks."""
    # The rows of a pair of blocks follow a Poisson distribution, so some pairs have no message.
    filled = -np.expm1(-sizes.needed_rows / pairs)
    messages = max(1, round(pairs * filled))
    rows = np.array([max(1, round(sizes.needed_rows / messages))])
    envelope = int(shuffled_bytes(rows, sizes.rank)[0]) - FLOAT * sizes.rank * int(rows[0])
    return messages, FLOAT * sizes.rank * sizes.needed_rows + envelope * messages


def expected_load(
    solved: ExpectedSide, source: ExpectedSide, rank: int, seconds_per_flop: float
) -> PlannedSide:
    """Estimate how the work of solving a side is distributed over its blocks.

    A sum over the ids of a block is assumed to be normal. The largest of B such sums is estimated
    as sqrt(2 ln B) standard deviations above the mean.
    """
    block_ids = solved.ids / solved.blocks
    spread = np.sqrt(2 * np.log(solved.blocks)) * np.sqrt(block_ids)

    def load(values: Degrees) -> Load:
        mean = block_ids * values.mean()
        return Load(float(mean), float(mean + spread * values.std()))

    ratings = load(solved.degrees)
    received = source.needed_rows(solved.blocks) / solved.blocks
    sent = solved.needed_rows(source.blocks) / solved.blocks
    links = Load(
        *(
            float(link_bytes(block_ids, count, received, sent, source.blocks))
            for count in (ratings.mean, ratings.most)
        )
    )
    rows = FLOAT * rank * (received + block_ids)
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
    """Estimate what trainings would move with hashed ids, without any ratings.

    `degrees` is the distribution of either side, as for `degree_quantiles`; `blocks` are by default
    1, 4 and 16 per executor. ``docs/explanation/exchange.md`` derives the formulas.
    """
    started = perf_counter()
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
    counts = [_count("blocks", count) for count in as_list(blocks or executors * BLOCKS)]
    speed = seconds_per_flop(rank)
    placements = []
    for count in counts:
        pair = (
            ExpectedSide.of(users, ratings, products, count, shape),
            ExpectedSide.of(products, ratings, users, count, shape),
        )
        step_sizes = tuple(
            HalfStepSizes(side.ids, side.needed_rows(count), ratings, rank, executors)
            for side in pair
        )
        traffic = [_expected_traffic(each, count * count) for each in step_sizes]
        placements.append(
            PlannedPlacement(
                partitioner="hash",
                blocks=(count, count),
                fit_seconds=0.0,
                users=expected_load(pair[0], pair[1], rank, speed),
                products=expected_load(pair[1], pair[0], rank, speed),
                half_steps={name: half_steps(name, step_sizes, traffic) for name in names},
                choice=choose(step_sizes[0], step_sizes[1]),
            )
        )
    seconds = perf_counter() - started
    return Plan(rank, ratings, users, products, executors, tuple(placements), seconds)


def _count(name: str, value: Any) -> int:
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if number and 1 <= value < np.inf and value == int(value):
        return int(value)
    raise SettingError(f"{name} must be a positive whole number but got {value!r}.")
