"""Statistics of ratings for a plan, from Spark's partitions or from this process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import HashPartitioner, Partitioner
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import PRODUCTS, USERS
from rddals.errors import RatingError, RddalsError
from rddals.exchange.choice import Resources
from rddals.exchange.resources import resources_here, resources_of
from rddals.planning.footprint import Footprint, footprints
from rddals.rdds.context import executors_of
from rddals.rdds.degrees import Degrees, merged_degrees
from rddals.rdds.scatter import Piece, own_ratings, scatter_ratings
from rddals.rdds.shuffles import Shuffle
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

Pairs = tuple[NDArray[np.int32], NDArray[np.int32]]

#: CPU quota of the control group of this process.
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class RatingStatistics(Protocol):
    """Statistics of ratings that a plan needs.

    Attributes
    ----------
    default_blocks : int
        Default number of blocks of a training.
    executors : int
        Number of executors.
    pairs : pair of ndarray of int32, shape (ratings,)
        User and product of every rating.
    degrees : pair of Degrees
        Degrees of all users and of all products.
    """

    @property
    def default_blocks(self) -> int: ...
    @property
    def executors(self) -> int: ...
    @property
    def pairs(self) -> Pairs: ...
    @property
    def degrees(self) -> tuple[Degrees, Degrees]: ...

    def resources(self, rank: int) -> Resources:
        """Return the resources for a training on these ratings."""

    def footprints(
        self, placements: Sequence[tuple[Partitioner, Partitioner]], rank: int
    ) -> list[tuple[Footprint, Footprint]]:
        """Return the footprints of users and products under each placement."""


class LocalRatings:
    """Statistics of ratings in the memory of this process, without Spark."""

    executors = 1

    def __init__(self, ratings: RatingBlock, duplicates: str) -> None:
        ratings = RatingBlock.from_columns(
            ratings.users, ratings.products, ratings.ratings, origin="the RatingBlock"
        ).combined(duplicates)
        if not len(ratings):
            raise RatingError(
                "The RatingBlock is empty: there is nothing to plan. Pass at least one rating."
            )
        self.default_blocks = cores()
        self.pairs = ratings.users, ratings.products

    def resources(self, rank: int) -> Resources:
        """Return the resources of this machine."""
        return resources_here(self.default_blocks, rank)

    @cached_property
    def degrees(self) -> tuple[Degrees, Degrees]:
        """Degrees of all users and of all products."""
        users, products = (_count_degrees(ids) for ids in self.pairs)
        return users, products

    def footprints(
        self, placements: Sequence[tuple[Partitioner, Partitioner]], rank: int
    ) -> list[tuple[Footprint, Footprint]]:
        """Return the footprints of users and products under each placement."""
        return _both_footprints(self.pairs, self.pairs, placements, rank)


class ShuffledRatings:
    """Statistics of ratings shuffled once by user and product; a context that releases them."""

    def __init__(self, source: RDD[Any], duplicates: str) -> None:
        self._sc = sc = source.context
        self.default_blocks = max(sc.defaultParallelism, source.getNumPartitions() // 2)
        self.executors = executors_of(sc)
        self._duplicates = duplicates
        self._task_reports = TaskReports(sc)
        partitioner = HashPartitioner(self.default_blocks)
        self._shuffle: Shuffle = scatter_ratings(
            source, (partitioner, partitioner), self._task_reports
        )

    def resources(self, rank: int) -> Resources:
        """Return the resources of the executors."""
        return resources_of(self._sc, rank)

    def __enter__(self) -> ShuffledRatings:
        try:
            self._shuffle.write()
            for error in self._task_reports.take("error"):
                raise error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._shuffle.release()
        self._task_reports.close()

    @cached_property
    def pairs(self) -> Pairs:
        """User and product of every rating, on the driver."""
        task = partial(_pairs, self._duplicates)
        users, products = zip(*self._shuffle.rdd.mapPartitions(task).collect(), strict=True)
        pairs = np.concatenate(users), np.concatenate(products)
        if not len(pairs[0]):
            raise _empty_error()
        return pairs

    @cached_property
    def degrees(self) -> tuple[Degrees, Degrees]:
        """Degrees of all users and of all products."""
        task = partial(_degrees, self._duplicates)
        users, products = zip(*self._shuffle.rdd.mapPartitions(task).collect(), strict=True)
        if not any(len(part.ids) for part in users):
            raise _empty_error()
        return merged_degrees(users), merged_degrees(products)

    def footprints(
        self, placements: Sequence[tuple[Partitioner, Partitioner]], rank: int
    ) -> list[tuple[Footprint, Footprint]]:
        """Return the footprints of users and products under each placement."""
        task = partial(_footprints, self._duplicates, placements, rank)
        parts = self._shuffle.rdd.mapPartitions(task).collect()
        for result in parts:
            if isinstance(result, RddalsError):
                raise result
        totals = [
            (Footprint.total(users), Footprint.total(products))
            for users, products in (zip(*sides, strict=True) for sides in zip(*parts, strict=True))
        ]
        if not totals[0][0].ratings.sum():
            raise _empty_error()
        return totals


def cores() -> int:
    """Return the number of cores that a local Spark would use.

    The JVM counts the cores that this process may run on, limited by the CPU quota of its
    container.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, period = CPU_QUOTA.read_text().split() if CPU_QUOTA.is_file() else ("max", "")
    if quota == "max":
        return allowed or 1
    return max(1, min(allowed or 1, -(-int(quota) // int(period))))


def _empty_error() -> RatingError:
    return RatingError("RDD is empty: there is nothing to plan.")


def _count_degrees(ids: NDArray[np.int32]) -> Degrees:
    return Degrees(*np.unique(ids, return_counts=True))


def _both_footprints(
    by_user: Pairs,
    by_product: Pairs,
    placements: Sequence[tuple[Partitioner, Partitioner]],
    rank: int,
) -> list[tuple[Footprint, Footprint]]:
    """Return both sides' footprints, from the pairs of some users and those of some products."""
    swapped = [(products, users) for users, products in placements]
    users = footprints(*by_user, placements, rank)
    products = footprints(*by_product[::-1], swapped, rank)
    return list(zip(users, products, strict=True))


def _own_pairs(pieces: list[tuple[int, Piece]], side: int, duplicates: str) -> Pairs:
    rated = own_ratings(pieces, side, duplicates)
    return rated.users, rated.products


@spark_task
def _pairs(duplicates: str, pieces: Iterable[tuple[int, Piece]]) -> Iterator[Pairs]:
    yield _own_pairs(list(pieces), USERS, duplicates)


@spark_task
def _degrees(
    duplicates: str, pieces: Iterable[tuple[int, Piece]]
) -> Iterator[tuple[Degrees, Degrees]]:
    own_pieces = list(pieces)
    users, _ = _own_pairs(own_pieces, USERS, duplicates)
    _, products = _own_pairs(own_pieces, PRODUCTS, duplicates)
    yield _count_degrees(users), _count_degrees(products)


@spark_task
def _footprints(
    duplicates: str,
    placements: Sequence[tuple[Partitioner, Partitioner]],
    rank: int,
    pieces: Iterable[tuple[int, Piece]],
) -> Iterator[Any]:
    """Compute the footprints of the users and products in this partition."""
    own_pieces = list(pieces)
    try:
        by_user = _own_pairs(own_pieces, USERS, duplicates)
        by_product = _own_pairs(own_pieces, PRODUCTS, duplicates)
        yield _both_footprints(by_user, by_product, placements, rank)
    except RddalsError as error:
        yield error
