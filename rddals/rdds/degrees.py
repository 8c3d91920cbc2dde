"""Degrees (ratings per id) and pairs of ids, to which partitioners are fitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from rddals.blocks.links import ratings_digest
from rddals.errors import RddalsError
from rddals.rdds.ingest import read_batches
from rddals.rdds.links import NoRatingsError
from rddals.rdds.worker_tuning import spark_task


class Degrees(NamedTuple):
    """Distinct ids in ascending order, and the number of ratings of each."""

    ids: NDArray[np.int32]
    counts: NDArray[np.int64]


def count_degrees(source: RDD[Any]) -> tuple[Degrees, Degrees]:
    """Return the degrees of all users and of all products, in one pass over the ratings."""
    users, products = _collected(source, _count)
    return merged_degrees(users), merged_degrees(products)


def collect_pairs(source: RDD[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the user and the product of every rating, on the driver."""
    users, products = _collected(source, _pairs)
    return np.concatenate(users), np.concatenate(products)


def _collected(source: RDD[Any], task: Any) -> Iterator[tuple[Any, ...]]:
    """Return what a task yields of the users, and of the products; raise an error if it yields one.

    Spark retries a task that raises, and buries the error in a Java traceback. So the tasks return
    the error of a bad rating, and it is raised on the driver.
    """
    parts = source.mapPartitionsWithIndex(task).collect()
    for part in parts:
        if isinstance(part, RddalsError):
            raise part
    if not parts:
        raise NoRatingsError("RDD is empty: there is nothing to train on.")
    return zip(*parts, strict=True)


def digest_of(source: RDD[Any]) -> int:
    """Return a 64-bit sum over all ratings, independent of their order.

    The ratings must be valid.
    """
    return int(source.mapPartitionsWithIndex(_digests).sum()) % 2**64


@spark_task
def _digests(partition: int, elements: Iterable[Any]) -> Iterator[int]:
    return map(ratings_digest, read_batches(partition, elements))


@spark_task
def _pairs(partition: int, elements: Iterable[Any]) -> Iterator[Any]:
    try:
        for batch in read_batches(partition, elements):
            yield batch.users, batch.products
    except RddalsError as error:
        yield error


@spark_task
def _count(partition: int, elements: Iterable[Any]) -> Iterator[Any]:
    try:
        batches = [
            [Degrees(*np.unique(ids, return_counts=True)) for ids in (batch.users, batch.products)]
            for batch in read_batches(partition, elements)
        ]
    except RddalsError as error:
        yield error
        return
    if batches:
        users, products = zip(*batches, strict=True)
        yield merged_degrees(users), merged_degrees(products)


def merged_degrees(parts: Iterable[Degrees]) -> Degrees:
    """Return the degrees of several parts together; an id may be in more than one."""
    parts = list(parts)
    ids, inverse = np.unique(np.concatenate([p.ids for p in parts]), return_inverse=True)
    counts = np.bincount(inverse, weights=np.concatenate([p.counts for p in parts]))
    return Degrees(ids, counts.astype(np.int64))
