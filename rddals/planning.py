"""What a training would move, before there is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import HashPartitioner, Partitioner
from rddals.config import Settings, block_count
from rddals.errors import RatingError, RddalsError, SettingError
from rddals.exchange import EXCHANGES, choose
from rddals.exchange.footprint import Footprint, footprints
from rddals.exchange.forecast import (
    Plan,
    PlannedPlacement,
    exchanges_asked,
    half_step_sizes,
    half_steps,
    load_of,
    several,
)
from rddals.kernels.speed import seconds_per_flop
from rddals.placement import Placement, checked_placement
from rddals.rdds.degrees import Degrees, merged_degrees
from rddals.rdds.frames import Columns
from rddals.rdds.ingest import rating_source
from rddals.rdds.pieces import PRODUCTS, USERS, Piece, own_ratings, send_pieces
from rddals.rdds.spark import ReportBook, Shuffle, executors_of, spared

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

    The ratings are read once and shuffled once; all else is counted from what that wrote.

    Parameters
    ----------
    ratings : RDD or DataFrame
        As `rddals.ALS.train` takes them.
    rank : int
        Length of a factor.
    exchanges : sequence of {"shuffle", "broadcast", "join"}
    partitioners : sequence
        Each a name, a `Partitioner`, a function from id to block, or a pair of these for users
        and products.
    blocks : int or sequence of int
        Blocks of either side; -1 for as many as a training would have.
    executors : int, optional
        Executors that a broadcast goes to; those that are there now, if left out.
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
    names = exchanges_asked(exchanges)
    source = rating_source(ratings, Columns.checked(userCol, itemCol, ratingCol))
    executors = _executors(executors, source)
    default = max(source.context.defaultParallelism, source.getNumPartitions() // 2)
    with _Sides(source, default, settings.duplicates) as sides:
        fitted = [_fitted(pair, default, sides) for pair in asked]
        counted = sides.footprints([pair for pair, _ in fitted], rank)
    placements = [
        _planned(sides_asked, pair, seconds, counts, names, rank, executors)
        for sides_asked, (pair, seconds), counts in zip(asked, fitted, counted, strict=True)
    ]
    users, products = counted[0]
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


def _executors(asked: Any, source: RDD[Any]) -> int:
    if asked is None:
        return executors_of(source.context)
    if isinstance(asked, (int, np.integer)) and not isinstance(asked, bool) and asked > 0:
        return int(asked)
    raise SettingError(f"executors must be a positive integer but got {asked!r}.")


class _Sides:
    """Ratings shuffled to their users and to their products: what everything is counted from."""

    def __init__(self, source: RDD[Any], partitions: int, duplicates: str) -> None:
        self._duplicates = duplicates
        self._book = ReportBook(source.context)
        spread = HashPartitioner(partitions)
        self._shuffle: Shuffle = send_pieces(source, (spread, spread), self._book)

    def __enter__(self) -> _Sides:
        try:
            self._shuffle.write()
            for error in self._book.take("error"):
                raise error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._shuffle.release()
        self._book.close()

    @cached_property
    def pairs(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """User and product of every rating, on the driver."""
        task = partial(_pairs, self._duplicates)
        users, products = zip(*self._shuffle.rdd.mapPartitions(task).collect(), strict=True)
        found = np.concatenate(users), np.concatenate(products)
        if not len(found[0]):
            raise _nothing()
        return found

    @cached_property
    def degrees(self) -> tuple[Degrees, Degrees]:
        """Degrees of all users and of all products."""
        task = partial(_degrees, self._duplicates)
        users, products = zip(*self._shuffle.rdd.mapPartitions(task).collect(), strict=True)
        if not any(len(part.ids) for part in users):
            raise _nothing()
        return merged_degrees(users), merged_degrees(products)

    def footprints(
        self, placements: Sequence[tuple[Partitioner, Partitioner]], rank: int
    ) -> list[tuple[Footprint, Footprint]]:
        """Users' and products' footprint under each placement."""
        task = partial(_footprints, self._duplicates, placements, rank)
        found = self._shuffle.rdd.mapPartitions(task).collect()
        for result in found:
            if isinstance(result, RddalsError):
                raise result
        totals = [
            (Footprint.total(users), Footprint.total(products))
            for users, products in (zip(*parts, strict=True) for parts in zip(*found, strict=True))
        ]
        if not totals[0][0].ratings.sum():
            raise _nothing()
        return totals


def _nothing() -> RatingError:
    return RatingError("RDD is empty: there is nothing to plan.")


@spared
def _pairs(
    duplicates: str, pieces: Iterable[tuple[int, Piece]]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    rated = own_ratings(pieces, USERS, duplicates)
    yield rated.users, rated.products


@spared
def _degrees(
    duplicates: str, pieces: Iterable[tuple[int, Piece]]
) -> Iterator[tuple[Degrees, Degrees]]:
    mine = list(pieces)
    users = own_ratings(mine, USERS, duplicates).users
    products = own_ratings(mine, PRODUCTS, duplicates).products
    yield (
        Degrees(*np.unique(users, return_counts=True)),
        Degrees(*np.unique(products, return_counts=True)),
    )


@spared
def _footprints(
    duplicates: str,
    placements: Sequence[tuple[Partitioner, Partitioner]],
    rank: int,
    pieces: Iterable[tuple[int, Piece]],
) -> Iterator[Any]:
    """Users' and products' footprints for each placement, of what this partition holds."""
    mine = list(pieces)
    swapped = [(products, users) for users, products in placements]
    try:
        rated = own_ratings(mine, USERS, duplicates)
        users = footprints(rated.users, rated.products, placements, rank)
        rated = own_ratings(mine, PRODUCTS, duplicates)
        products = footprints(rated.products, rated.users, swapped, rank)
    except RddalsError as error:
        yield error
        return
    yield list(zip(users, products, strict=True))


def _fitted(
    placements: tuple[Placement, Placement], default: int, sides: _Sides
) -> tuple[tuple[Partitioner, Partitioner], float]:
    """Both sides' partitioners, and the seconds that fitting them took."""
    degrees: Sequence[Degrees | None] = (None, None)
    if any(placement.needs_degrees for placement in placements):
        degrees = sides.degrees
    pairs = sides.pairs if any(placement.needs_pairs for placement in placements) else None
    started = perf_counter()
    users, products = placements
    fitted = (
        users.partitioner(default, degrees[0], pairs),
        products.partitioner(default, degrees[1], pairs and pairs[::-1]),
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
        choice=choose(*sizes),
        footprints=pair,
    )
