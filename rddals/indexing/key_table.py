"""Distributed table of keys: lookup of ids by key and of keys by id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from rddals.errors import RatingTypeError
from rddals.indexing.keys import Key, Keys, bucket_of, checked_key
from rddals.rdds.context import head
from rddals.rdds.lifetimes import Shared
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task

#: Number of pairs routed at once.
PAIRS_PER_BATCH = 1 << 16


class KeyTable(Shared):
    """Keys of both sides as an RDD of `Keys`, with bucket b in partition b.

    Attributes
    ----------
    buckets : RDD of Keys
        Keys of each bucket.
    firsts : pair of ndarray of int64, shape (buckets + 1,)
        First id of each bucket, for users and products. The last entry is the number of keys.
    """

    def __init__(
        self, buckets: RDD[Keys], firsts: tuple[NDArray[np.int64], NDArray[np.int64]]
    ) -> None:
        super().__init__(buckets)
        self.buckets = buckets
        self.firsts = firsts

    @property
    def partitions(self) -> int:
        """Number of buckets."""
        return len(self.firsts[0]) - 1

    @cached_property
    def kinds(self) -> tuple[type[Key], type[Key]]:
        """Type of the user keys and of the product keys: str or int."""
        users, products = (
            type(head(self.buckets.flatMap(partial(_of_side, side)))[0]) for side in (0, 1)
        )
        return users, products

    def ids_of(self, side: int, keys: Sequence[Key]) -> list[int | None]:
        """Return the id of each key, or None for an unknown key."""
        buckets = bucket_of(keys, self.partitions)
        ranks = self._query(partial(_ranks, side, list(keys)), np.unique(buckets))
        firsts = self.firsts[side]
        return [
            None if (rank := ranks[bucket].get(key)) is None else int(firsts[bucket]) + rank
            for key, bucket in zip(keys, buckets.tolist(), strict=True)
        ]

    def keys_of(self, side: int, ids: Sequence[int]) -> list[Key]:
        """Return the key of each id. All ids must be known."""
        array = np.asarray(ids, dtype=np.int64)
        buckets = np.searchsorted(self.firsts[side], array, side="right") - 1
        ranks = array - self.firsts[side][buckets]
        requested = {b: ranks[buckets == b].tolist() for b in np.unique(buckets).tolist()}
        keys = self._query(partial(_at_ranks, side, requested), np.unique(buckets))
        return [
            keys[bucket][rank]
            for bucket, rank in zip(buckets.tolist(), ranks.tolist(), strict=True)
        ]

    def all_keys(self, side: int) -> list[Key]:
        """Collect all keys on the driver, in the order of their ids."""
        lists = self.buckets.map(partial(_of_side, side)).collect()
        return [key for keys in lists for key in keys]

    def with_keys(self, side: int, pairs: RDD[tuple[int, Any]]) -> RDD[tuple[Key, Any]]:
        """Replace the ids of ``(id, value)`` pairs by keys. All ids must be known."""
        pieces = pairs.mapPartitions(partial(_by_bucket_of_id, self.firsts[side]))
        return self._join(pieces, partial(_with_keys, side, self.firsts[side]))

    def with_ids(self, side: int, pairs: RDD[tuple[Any, Any]]) -> RDD[tuple[int, Any]]:
        """Replace the keys of ``(key, value)`` pairs by ids, and drop unknown keys."""
        pieces = pairs.mapPartitions(partial(_by_bucket_of_key, self.partitions))
        return self._join(pieces, partial(_with_ids, side, self.firsts[side]))

    def _join(self, pieces: RDD[Any], task: Callable[..., Any]) -> RDD[Any]:
        sent = Shuffle(pieces, self.partitions).rdd
        both = co_partitioned([with_shuffle_serializer(self.buckets), sent])
        return both.mapPartitionsWithIndex(task)

    def _query(self, task: Callable[..., Any], buckets: NDArray[Any]) -> dict[int, Any]:
        """Run a task on some buckets and return the results by bucket."""
        if not len(buckets):
            return {}
        numbered = self.buckets.mapPartitionsWithIndex(partial(_numbered, task))
        sc = self.buckets.context
        return dict(sc.runJob(numbered, list, [int(b) for b in buckets]))


@spark_task
def _numbered(
    task: Callable[[Keys, int], Any], partition: int, buckets: Iterable[Keys]
) -> Iterator[tuple[int, Any]]:
    return ((partition, task(keys, partition)) for keys in buckets)


def _of_side(side: int, keys: Keys) -> list[Key]:
    return keys.of_side(side)


def _ranks(side: int, requested: list[Key], keys: Keys, bucket: int) -> dict[Key, int]:
    ranks = {key: keys.rank(side, key) for key in requested}
    return {key: rank for key, rank in ranks.items() if rank is not None}


def _at_ranks(
    side: int, requested: dict[int, list[int]], keys: Keys, bucket: int
) -> dict[int, Key]:
    own = keys.of_side(side)
    return {rank: own[rank] for rank in requested[bucket]}


@spark_task
def _by_bucket_of_id(
    firsts: NDArray[np.int64], pairs: Iterable[tuple[int, Any]]
) -> Iterator[tuple[int, list[tuple[int, Any]]]]:
    pairs = iter(pairs)
    while batch := list(islice(pairs, PAIRS_PER_BATCH)):
        ids = np.array([id_ for id_, _ in batch], dtype=np.int64)
        yield from split_by_bucket(np.searchsorted(firsts, ids, side="right") - 1, batch)


@spark_task
def _by_bucket_of_key(
    partitions: int, pairs: Iterable[tuple[Any, Any]]
) -> Iterator[tuple[int, list[tuple[Any, Any]]]]:
    pairs = iter(pairs)
    while batch := list(islice(pairs, PAIRS_PER_BATCH)):
        yield from split_by_bucket(bucket_of(_keys_of_pairs(batch), partitions), batch)


def _keys_of_pairs(batch: list[Any]) -> list[Key]:
    try:
        return [checked_key(key) for key, _ in batch]
    except (TypeError, ValueError):
        bad = next(pair for pair in batch if not is_key_pair(pair))
        raise RatingTypeError(
            f"{bad!r} is not a pair of keys; pass an RDD of (user, product)."
        ) from None


def is_key_pair(pair: Any) -> bool:
    """Return whether `pair` is a tuple or list of two values of which the first is a key."""
    try:
        key, _ = pair
        checked_key(key)
    except (TypeError, ValueError):
        return False
    return isinstance(pair, (tuple, list))


def split_by_bucket(buckets: NDArray[Any], batch: list[Any]) -> Iterator[tuple[int, list[Any]]]:
    """Yield the elements of a batch by bucket, in their original order."""
    pieces: dict[int, list[Any]] = {}
    for bucket, pair in zip(buckets.tolist(), batch, strict=True):
        pieces.setdefault(bucket, []).append(pair)
    return iter(pieces.items())


def _keys_and_pairs(records: Iterable[Any]) -> tuple[Keys | None, list[tuple[Any, Any]]]:
    keys, pairs = None, []
    for record in records:
        if isinstance(record, Keys):
            keys = record
        else:
            pairs.extend(record[1])
    return keys, pairs


@spark_task
def _with_keys(
    side: int, firsts: NDArray[np.int64], bucket: int, records: Iterable[Any]
) -> Iterator[tuple[Key, Any]]:
    keys, pairs = _keys_and_pairs(records)
    if keys is not None:
        own, first = keys.of_side(side), int(firsts[bucket])
        for id_, value in pairs:
            yield own[id_ - first], value


@spark_task
def _with_ids(
    side: int, firsts: NDArray[np.int64], bucket: int, records: Iterable[Any]
) -> Iterator[tuple[int, Any]]:
    keys, pairs = _keys_and_pairs(records)
    if keys is not None:
        first = int(firsts[bucket])
        id_of = {key: id_ for id_, key in enumerate(keys.of_side(side), first)}
        for key, value in pairs:
            if key in id_of:
                yield id_of[key], value
