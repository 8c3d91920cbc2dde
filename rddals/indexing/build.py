"""Assignment of ids to the keys of ratings, and conversion of the ratings to ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from rddals.blocks.ratings import INT32_MAX, ROW_TYPES, RatingBlock, first_bad_row, in_order
from rddals.blocks.sides import ID_NAMES
from rddals.errors import RatingError, RddalsError
from rddals.indexing.key_table import KeyTable
from rddals.indexing.keys import CodedRatings, Coder, Key, Keys, bucket_of, checked_key, in_id_order
from rddals.rdds.factors import split_by_block
from rddals.rdds.frames import ArrowColumns
from rddals.rdds.lifetimes import cut_lineage, discard, undo_on_failure
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

#: Number of rows converted to columns at once.
ROWS_PER_BATCH = 1 << 16
REMEDY = "Pass (user key, product key, rating) with strings or integers as keys."
#: Number of keys of one side in a bucket, and an example of each type.
_Kinds = tuple[int, dict[type, Key]]


def index_source(source: RDD[Any]) -> tuple[RDD[RatingBlock], KeyTable, tuple[Shuffle, Shuffle]]:
    """Assign an id to every key; return the ratings with ids, the keys, and their shuffles.

    The source has ``(user key, product key, rating)``, or is from `rddals.rdds.frames.keys_of`.
    Each partition numbers its own keys and requests their ids from the buckets. There are two
    shuffles. The first sends the numbered ratings to their own partition and the distinct keys of
    each partition to the buckets; the second returns the ids. No data passes through the driver.
    """
    partitions = max(1, source.getNumPartitions())
    with undo_on_failure() as undo, closing(TaskReports(source.context)) as task_reports:
        coded = source.mapPartitionsWithIndex(partial(_encode, partitions, task_reports))
        sent = Shuffle(coded, partitions)
        undo.callback(sent.release)
        sent.write()
        for error in task_reports.take("error"):
            raise error
        keys = with_shuffle_serializer(
            sent.rdd.mapPartitionsWithIndex(
                partial(_keys, task_reports), preservesPartitioning=True
            )
        )
        cut_lineage(keys)
        undo.callback(discard, keys)
        firsts = _firsts(task_reports.take("kinds"))
        requests = co_partitioned([keys, sent.rdd])
        replies = Shuffle(requests.mapPartitionsWithIndex(partial(_reply, firsts)), partitions)
        undo.callback(replies.release)
        replies.write()
        ratings = co_partitioned([sent.rdd, replies.rdd]).mapPartitions(_with_ids)
    return ratings, KeyTable(keys, firsts), (sent, replies)


def _firsts(reports: list[list[_Kinds]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first id of each bucket for both sides, after checking the keys."""
    firsts = []
    for name, buckets in zip(ID_NAMES, zip(*reports, strict=True), strict=True):
        counts = [count for count, _ in buckets]
        kinds = {kind: key for _, examples in buckets for kind, key in examples.items()}
        if not kinds:
            raise RatingError("RDD is empty: there is nothing to index.")
        if len(kinds) > 1:
            raise RatingError(
                f"{name} keys are strings ({kinds[str]!r}) and integers ({kinds[int]!r}); convert "
                "all keys of a side to the same type."
            )
        if sum(counts) > INT32_MAX:
            raise RatingError(
                f"There are {sum(counts)} {name} keys; ids fit at most {INT32_MAX} of them."
            )
        firsts.append(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    return firsts[0], firsts[1]


@spark_task
def _encode(
    partitions: int, task_reports: TaskReports, partition: int, elements: Iterable[Any]
) -> Iterator[tuple[int, Any]]:
    """Yield the coded ratings for this partition, and the keys of both sides for each bucket."""
    coders = Coder(), Coder()
    try:
        blocks = list(_coded(coders, partition, iter(elements)))
        sides = [coder.keys() for coder in coders]
    except (RddalsError, ValueError) as error:
        if not isinstance(error, RddalsError):  # an oversized integer key, or an invalid string
            error = RatingError(f"partition {partition}: key {error}.")
        # Raised in a task, the error would be retried and wrapped in a Java traceback.
        task_reports.add("error", partition, error)
        return
    buckets = bucket_of(sides[0], partitions), bucket_of(sides[1], partitions)
    yield partition, CodedRatings(RatingBlock.concatenate(blocks), buckets)
    for side in (0, 1):
        keys = np.empty(len(sides[side]), dtype=object)
        keys[:] = sides[side]
        for bucket, (own,) in split_by_block(buckets[side], keys):
            yield bucket, (side, partition, own.tolist())


def _coded(
    coders: tuple[Coder, Coder], partition: int, elements: Iterator[Any]
) -> Iterator[RatingBlock]:
    row = 0
    while rows := list(islice(elements, 1)):
        if isinstance(rows[0], ArrowColumns):
            origin = f"partition {partition}"
            try:
                yield rows[0].coded(coders[0].code, coders[1].code, origin)
            except RddalsError:
                raise
            except ValueError as error:  # an invalid key
                raise RatingError(f"{origin}: key {error}.") from None
            continue
        rows.extend(islice(elements, ROWS_PER_BATCH - 1))
        kinds = set(map(type, rows))
        rows = list(in_order(rows, kinds))
        try:
            if not all(issubclass(kind, ROW_TYPES) for kind in kinds):
                raise TypeError
            users, products, ratings = zip(*rows, strict=True)
            codes = coders[0].code(users), coders[1].code(products)
            values = np.array(ratings, dtype=np.float64)
            if values.ndim != 1:
                raise TypeError
        except (TypeError, ValueError, OverflowError):
            raise first_bad_row(
                rows, f"partition {partition}", row, find_id_error=_find_key_error, remedy=REMEDY
            ) from None
        origin = f"partition {partition} from row {row}"
        yield RatingBlock.from_columns(codes[0], codes[1], values, origin=origin)
        row += len(rows)


def _find_key_error(name: str, key: Any) -> str | None:
    try:
        checked_key(key)
    except ValueError as error:
        return f"{name} key {error}."
    return None


@spark_task
def _keys(
    task_reports: TaskReports, partition: int, pieces: Iterable[tuple[int, Any]]
) -> Iterator[Keys]:
    sides: tuple[set[Key], set[Key]] = set(), set()
    for _, piece in pieces:
        if not isinstance(piece, CodedRatings):
            side, _, keys = piece
            sides[side].update(keys)
    kinds = [(len(keys), {type(key): key for key in keys}) for keys in sides]
    task_reports.add("kinds", partition, kinds)
    # Keys of both types cannot be sorted, and the driver raises an error for them.
    if all(len(examples) < 2 for _, examples in kinds):
        yield Keys(*map(in_id_order, sides))


@spark_task
def _reply(
    firsts: tuple[NDArray[np.int64], NDArray[np.int64]], bucket: int, records: Iterable[Any]
) -> Iterator[tuple[int, tuple[int, int, NDArray[np.int32]]]]:
    """Yield the ids of the keys that each partition requested, in the order of its request."""
    ids_by_side: list[dict[Key, int]] = []
    for record in records:
        if isinstance(record, Keys):
            for side in (0, 1):
                first = int(firsts[side][bucket])
                keys = record.of_side(side)
                ids_by_side.append({key: id_ for id_, key in enumerate(keys, first)})
        elif not isinstance(record[1], CodedRatings):
            side, origin, requested = record[1]
            id_of = ids_by_side[side]
            ids = np.array([id_of[key] for key in requested], dtype=np.int32)
            yield origin, (side, bucket, ids)


@spark_task
def _with_ids(records: Iterable[tuple[int, Any]]) -> Iterator[RatingBlock]:
    coded: CodedRatings | None = None
    replies: tuple[dict[int, NDArray[np.int32]], dict[int, NDArray[np.int32]]] = {}, {}
    for _, record in records:
        if isinstance(record, CodedRatings):
            coded = record
        elif isinstance(record[2], np.ndarray):
            side, bucket, ids = record
            replies[side][bucket] = ids
    if coded is not None and len(coded.ratings):
        yield coded.with_ids(replies)
