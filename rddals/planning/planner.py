"""What a training would move, before there is one."""

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
    checked_exchanges,
    half_step_sizes,
    half_steps,
    load_of,
    several,
)
from rddals.planning.statistics import LocalRatings, RatingStatistics, ShuffledRatings
from rddals.rdds.degrees import Degrees
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.placement import Placement, checked_placement

__all__ = ["plan"]


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
    """Count what trainings on some ratings would move, without training.

    An RDD is read once and shuffled once; all else is counted from what that wrote.

    Parameters
    ----------
    ratings : RDD, DataFrame or RatingBlock
        As `rddals.ALS.train` takes them; or columns in the memory of this process, for which no
        Spark is needed.
    rank : int
        Length of a factor.
    exchanges : sequence of {"shuffle", "broadcast", "join", "local"}
    partitioners : sequence
        Each a name, a `Partitioner`, a function from id to block, or a pair of these for users
        and products.
    blocks : int or sequence of int
        Blocks of either side; -1 for as many as a training would have, of a `RatingBlock` as many
        as this machine has cores.
    executors : int, optional
        Executors that a broadcast goes to; those that are there now, if left out, and one for a
        `RatingBlock`. If given, nothing is known of their cores and memory, and the choice is
        between shuffle and broadcast.
    duplicates : {"keep", "last", "mean", "sum"}
    userCol, itemCol, ratingCol : str, optional
        Columns of a DataFrame, as for `rddals.ALS.train`.

    Returns
    -------
    Plan

    Raises
    ------
    RddalsError
        For settings or ratings that could not be trained with.
    """
    began = perf_counter()
    settings = Settings.checked(
        rank=rank, iterations=1, lambda_=0.01, nonnegative=False, seed=0, duplicates=duplicates
    )
    rank = settings.objective.rank
    asked = _placements(partitioners, blocks)
    names = checked_exchanges(exchanges)
    destinations = None if executors is None else _executors(executors)
    columns = Columns.checked(userCol, itemCol, ratingCol)
    with _counted(ratings, columns, settings.duplicates) as counted:
        executors = destinations or counted.executors
        resources = counted.resources(rank) if destinations is None else None
        fitted = [_fitted(pair, counted) for pair in asked]
        counts = counted.footprints([pair for pair, _ in fitted], rank)
    placements = [
        _planned(sides, pair, seconds, counts_of_pair, names, rank, executors, resources)
        for sides, (pair, seconds), counts_of_pair in zip(asked, fitted, counts, strict=True)
    ]
    users, products = counts[0]
    return Plan(
        rank=rank,
        ratings=int(users.ratings.sum()),
        users=int(users.ids.sum()),
        products=int(products.ids.sum()),
        executors=executors,
        placements=tuple(placements),
        seconds=perf_counter() - began,
    )


def _placements(partitioners: Any, blocks: Any) -> list[tuple[Placement, Placement]]:
    """Users' and products' placement: every partitioner with every number of blocks."""
    counts = [block_count("blocks", count) for count in several(blocks)]
    listed = several(partitioners)
    if not listed or not counts:
        raise SettingError("There is nothing to plan: partitioners or blocks are empty.")
    asked = []
    for partitioner in listed:
        pair = partitioner if isinstance(partitioner, tuple) else (partitioner, partitioner)
        if len(pair) != 2:
            raise SettingError(
                f"partitioners: {pair!r} is no pair of one for users and one for products; pass a "
                "pair, or one for both."
            )
        for count in counts:
            users, products = (
                checked_placement("partitioners", each, count, "blocks") for each in pair
            )
            asked.append((users, products))
    return asked


def _executors(asked: Any) -> int:
    if isinstance(asked, (int, np.integer)) and not isinstance(asked, bool) and asked > 0:
        return int(asked)
    raise SettingError(f"executors must be a positive integer but got {asked!r}.")


def _counted(
    ratings: Any, columns: Columns, duplicates: str
) -> AbstractContextManager[RatingStatistics]:
    """What the plan is counted from; only in the context, where they are spread."""
    if not isinstance(ratings, RatingBlock):
        return ShuffledRatings(rating_source(ratings, columns), duplicates)
    if any(name is not None for name in columns):
        raise SettingError(
            f"{columns.described()} name columns of a DataFrame, but the ratings are a "
            "RatingBlock; leave them out."
        )
    return nullcontext(LocalRatings(ratings, duplicates))


def _fitted(
    placements: tuple[Placement, Placement], ratings: RatingStatistics
) -> tuple[tuple[Partitioner, Partitioner], float]:
    """Both sides' partitioners, and the seconds that fitting them took."""
    degrees: Sequence[Degrees | None] = (None, None)
    if any(placement.needs_degrees for placement in placements):
        degrees = ratings.degrees
    pairs = ratings.pairs if any(placement.needs_pairs for placement in placements) else None
    started = perf_counter()
    users, products = placements
    fitted = (
        users.partitioner(ratings.default_blocks, degrees[0], pairs),
        products.partitioner(ratings.default_blocks, degrees[1], pairs and pairs[::-1]),
    )
    return fitted, perf_counter() - started


def _planned(
    asked: tuple[Placement, Placement],
    partitioners: tuple[Partitioner, Partitioner],
    fit_seconds: float,
    pair: tuple[Footprint, Footprint],
    exchanges: Sequence[str],
    rank: int,
    executors: int,
    resources: Resources | None,
) -> PlannedPlacement:
    sizes = half_step_sizes(pair, rank, executors)
    speed = seconds_per_flop(rank)
    names = dict.fromkeys(placement.name for placement in asked)
    return PlannedPlacement(
        partitioner=", ".join(names),
        blocks=(partitioners[0].num_blocks, partitioners[1].num_blocks),
        fit_seconds=fit_seconds,
        users=load_of(pair[0], pair[1], rank, speed),
        products=load_of(pair[1], pair[0], rank, speed),
        half_steps={name: half_steps(name, pair, sizes) for name in exchanges},
        choice=choose(*sizes, resources),
        footprints=pair,
    )
