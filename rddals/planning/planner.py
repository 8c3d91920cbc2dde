"""Plans of the data movement of trainings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import numpy as np

from partitioners import Partitioner
from rddals.blocks.ratings import RatingBlock
from rddals.config import Settings, block_count
from rddals.errors import SettingError
from rddals.exchange import EXCHANGES, Resources, choose
from rddals.kernels.calibration import seconds_per_flop
from rddals.planning.footprint import Footprint
from rddals.planning.forecast import (
    Plan,
    PlannedPlacement,
    as_list,
    checked_exchanges,
    half_steps,
    load_of,
    sizes_of_footprints,
    traffic_of_footprints,
)
from rddals.planning.statistics import LocalRatings, ShuffledRatings
from rddals.rdds.degrees import Degrees
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.placement import DEGREES, PAIRS, Placement, checked_placement


def plan(
    ratings: Any,
    rank: int,
    *,
    exchanges: Sequence[str] | str = tuple(EXCHANGES),
    partitioners: Any = ("hash",),
    blocks: Any = -1,
    executors: int | None = None,
    duplicates: str = "keep",
    userCol: str | None = None,
    itemCol: str | None = None,
    ratingCol: str | None = None,
) -> Plan:
    """Count what trainings on the given ratings would move, without training.

    An RDD is read once and shuffled once. All counts are made from that shuffle.

    Parameters
    ----------
    ratings : RDD, DataFrame or RatingBlock
        Ratings, as for `rddals.ALS.train`, or columns in the memory of this process. A
        `RatingBlock` does not need Spark.
    rank : int
        Length of a factor row.
    exchanges : sequence of {"shuffle", "broadcast", "join", "local"}
        Exchanges to plan.
    partitioners : sequence
        Partitioners to plan: names, `Partitioner` objects, functions from id to block, or pairs of
        these for users and products.
    blocks : int or sequence of int
        Numbers of blocks of either side. -1 is the default of a training, or the number of cores of
        this machine for a `RatingBlock`.
    executors : int, optional
        Executors that receive a broadcast. By default those of the running application, or one for
        a `RatingBlock`. If given, their cores and memory are unknown, and "auto" chooses between
        shuffle and broadcast only.
    duplicates : {"keep", "last", "mean", "sum"}
        How to combine duplicates, as for `rddals.ALS.train`.
    userCol, itemCol, ratingCol : str, optional
        Columns of a DataFrame, as for `rddals.ALS.train`.

    Returns
    -------
    Plan

    Raises
    ------
    RddalsError
        For settings or ratings that a training would reject.
    """
    started = perf_counter()
    settings = Settings.checked(
        rank=rank, iterations=1, lambda_=0.01, nonnegative=False, seed=0, duplicates=duplicates
    )
    rank = settings.objective.rank
    requested = _placements(partitioners, blocks)
    names = checked_exchanges(exchanges)
    given_executors = None if executors is None else _executors(executors)
    columns = Columns.checked(userCol, itemCol, ratingCol)
    with _statistics(ratings, columns, settings.duplicates) as statistics:
        executors = given_executors or statistics.executors
        resources = statistics.resources(rank) if given_executors is None else None
        fitted = [_fit(pair, statistics) for pair in requested]
        counts = statistics.footprints([pair for pair, _ in fitted], rank)
    placements = [
        _plan_placement(sides, pair, seconds, footprints, names, rank, executors, resources)
        for sides, (pair, seconds), footprints in zip(requested, fitted, counts, strict=True)
    ]
    users, products = counts[0]
    return Plan(
        rank=rank,
        ratings=int(users.ratings.sum()),
        users=int(users.ids.sum()),
        products=int(products.ids.sum()),
        executors=executors,
        placements=tuple(placements),
        seconds=perf_counter() - started,
    )


def _placements(partitioners: Any, blocks: Any) -> list[tuple[Placement, Placement]]:
    """Combine every partitioner with every number of blocks, for users and for products."""
    counts = [block_count("blocks", count) for count in as_list(blocks)]
    listed = as_list(partitioners)
    if not listed or not counts:
        raise SettingError(
            "There is nothing to plan: partitioners or blocks are empty. Pass at least one of each."
        )
    pairs = []
    for partitioner in listed:
        pair = partitioner if isinstance(partitioner, tuple) else (partitioner, partitioner)
        if len(pair) != 2:
            raise SettingError(
                f"partitioners: {pair!r} is not a pair of partitioners. Pass one for users and one "
                "for products, or one for both."
            )
        for count in counts:
            users, products = (
                checked_placement("partitioners", each, count, "blocks") for each in pair
            )
            pairs.append((users, products))
    return pairs


def _executors(value: Any) -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0:
        return int(value)
    raise SettingError(f"executors must be a positive integer but got {value!r}.")


def _statistics(
    ratings: Any, columns: Columns, duplicates: str
) -> AbstractContextManager[LocalRatings | ShuffledRatings]:
    """Return the statistics of the ratings; they are available within the context only."""
    if not isinstance(ratings, RatingBlock):
        return ShuffledRatings(rating_source(ratings, columns), duplicates)
    if any(name is not None for name in columns):
        raise SettingError(
            f"{columns.described()} name columns of a DataFrame, but the ratings are a "
            "RatingBlock. Omit them."
        )
    return nullcontext(LocalRatings(ratings, duplicates))


def _fit(
    placements: tuple[Placement, Placement], ratings: LocalRatings | ShuffledRatings
) -> tuple[tuple[Partitioner, Partitioner], float]:
    """Fit the partitioners of both sides, and return them and the seconds that it took."""
    degrees: Sequence[Degrees | None] = (None, None)
    users, products = placements
    needed = (users.needs, products.needs)
    if DEGREES in needed:
        degrees = ratings.degrees
    pairs = ratings.pairs if PAIRS in needed else None
    started = perf_counter()
    fitted = (
        users.partitioner(ratings.default_blocks, degrees[0], pairs),
        products.partitioner(ratings.default_blocks, degrees[1], pairs and pairs[::-1]),
    )
    return fitted, perf_counter() - started


def _plan_placement(
    requested: tuple[Placement, Placement],
    partitioners: tuple[Partitioner, Partitioner],
    fit_seconds: float,
    pair: tuple[Footprint, Footprint],
    exchanges: Sequence[str],
    rank: int,
    executors: int,
    resources: Resources | None,
) -> PlannedPlacement:
    sizes = sizes_of_footprints(pair, rank, executors)
    traffic = traffic_of_footprints(pair, rank)
    speed = seconds_per_flop(rank)
    names = dict.fromkeys(placement.name for placement in requested)
    return PlannedPlacement(
        partitioner=", ".join(names),
        blocks=(partitioners[0].num_blocks, partitioners[1].num_blocks),
        fit_seconds=fit_seconds,
        users=load_of(pair[0], pair[1], rank, speed),
        products=load_of(pair[1], pair[0], rank, speed),
        half_steps={name: half_steps(name, sizes, traffic) for name in exchanges},
        choice=choose(*sizes, resources),
        footprints=pair,
    )
