"""Statistics of ratings for a plan, from Spark's partitions or from this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

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
        return _degrees(self.pairs, self.pairs)

    def footprints(
        self, placements: Sequence[tuple[Partitioner, Partitioner]], rank: int
    ) -> list[tuple[Footprint, Footprint]]:
        """Return the footprints of users and products under each placement."""
        return _footprints(placements, rank, self.pairs, self.pairs)


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
        users, products = zip(*self._summaries(_pairs_of_users), strict=True)
        return np.concatenate(users), np.concatenate(products)

    @cached_property
    def degrees(self) -> tuple[Degrees, Degrees]:
        """Degrees of all users and of all products."""
        users, products = zip(*self._summaries(_degrees), strict=True)
        return merged_degrees(users), merged_degrees(products)

    def footprints(
        self, placements: Sequence[tuple[Partitioner, Partitioner]], rank: int
    ) -> list[tuple[Footprint, Footprint]]:
        """Return the footprints of users and products under each placement."""
        parts = self._summaries(partial(_footprints, placements, rank))
        return [
            (Footprint.total(users), Footprint.total(products))
            for users, products in (zip(*sides, strict=True) for sides in zip(*parts, strict=True))
        ]

    def _summaries(self, summarise: Callable[[Pairs, Pairs], Any]) -> list[Any]:
        """Return a summary of each partition, from the pairs of its users and of its products."""
        task = partial(_summary, self._duplicates, summarise)
        results = self._shuffle.rdd.mapPartitions(task).collect()
        for result in results:
            if isinstance(result, RddalsError):
                raise result
        if not any(ratings for ratings, _ in results):
            raise RatingError("RDD is empty: there is nothing to plan.")
        return [summary for _, summary in results]


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


def _pairs_of_users(by_user: Pairs, by_product: Pairs) -> Pairs:
    return by_user


def _degrees(by_user: Pairs, by_product: Pairs) -> tuple[Degrees, Degrees]:
    users, products = by_user[USERS], by_product[PRODUCTS]
    return (
        Degrees(*np.unique(users, return_counts=True)),
        Degrees(*np.unique(products, return_counts=True)),
    )


def _footprints(
    placements: Sequence[tuple[Partitioner, Partitioner]],
    rank: int,
    by_user: Pairs,
    by_product: Pairs,
) -> list[tuple[Footprint, Footprint]]:
    """Return both sides' footprints, from the pairs of some users and those of some products."""
    swapped = [(products, users) for users, products in placements]
    users = footprints(*by_user, placements, rank)
    products = footprints(*by_product[::-1], swapped, rank)
    return list(zip(users, products, strict=True))


@spark_task
def _summary(
    duplicates: str,
    summarise: Callable[[Pairs, Pairs], Any],
    pieces: Iterable[tuple[int, Piece]],
) -> Iterator[Any]:
    """Yield the number of ratings of this partition's users and the summary, or the error."""
    own_pieces = list(pieces)
    try:
        sides = [own_ratings(own_pieces, side, duplicates) for side in (USERS, PRODUCTS)]
        by_user, by_product = ((rated.users, rated.products) for rated in sides)
        yield len(by_user[USERS]), summarise(by_user, by_product)
    except RddalsError as error:
        yield error
