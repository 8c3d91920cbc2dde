"""Indexing: every key of the ratings gets an id, and the ratings come out with ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from rddals.blocks.ratings import INT32_MAX, RatingBlock
from rddals.blocks.sides import ID_NAMES
from rddals.errors import RatingError, RatingTypeError, RddalsError
from rddals.indexing.key_table import KeyTable
from rddals.indexing.keys import CodedRatings, Coder, Key, Keys, bucket_of, checked_key, mixed
from rddals.rdds.factors import split_by_block
from rddals.rdds.frames import ArrowColumns
from rddals.rdds.lifetimes import cut_lineage, discard
from rddals.rdds.shuffles import Shuffle, co_partitioned, with_shuffle_serializer
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

__all__ = ["Indexed", "index_source"]

ROW_TYPES = (tuple, list, np.ndarray)
#: Rows that are turned into columns at a time.
ROWS_PER_BATCH = 1 << 16
REMEDY = "Pass (user key, product key, rating), the keys strings or integers."


class Indexed(NamedTuple):
    """Ratings with ids for keys, and what they are made from."""

    ratings: RDD[RatingBlock]
    keys: KeyTable
    shuffles: tuple[Shuffle, Shuffle]


def index_source(source: RDD[Any]) -> Indexed:
    """Give every key of the ratings an id, and the ratings with ids.

    Each partition numbers its keys, and asks the buckets for their ids. Two shuffles: of the
    ratings with those numbers, which stay in their partition, and each partition's distinct keys;
    and of the ids. Nothing passes through the driver.

    Parameters
    ----------
    source : RDD
        Of (user key, product key, rating), or as `rddals.rdds.frames.keys_of` gives it.
    """
    sc = source.context
    partitions = max(1, source.getNumPartitions())
    task_reports = TaskReports(sc)
    shuffles: list[Shuffle] = []
    keys: RDD[Keys] | None = None
    try:
        coded = source.mapPartitionsWithIndex(partial(_encode, partitions, task_reports))
        sent = Shuffle(coded, partitions)
        shuffles.append(sent)
        sent.write()
        for error in task_reports.take("error"):
            raise error
        keys = with_shuffle_serializer(
            sent.rdd.mapPartitionsWithIndex(
                partial(_keys, task_reports), preservesPartitioning=True
            )
        )
        cut_lineage(keys)
        for error in task_reports.take("error"):
            raise error
        firsts = _firsts(task_reports.take("kinds"))
        asked = co_partitioned([keys, sent.rdd])
        replies = Shuffle(asked.mapPartitionsWithIndex(partial(_reply, firsts)), partitions)
        shuffles.append(replies)
        replies.write()
        answered = co_partitioned([sent.rdd, replies.rdd])
        ratings = answered.mapPartitions(_identified)
    except BaseException:
        for shuffle in shuffles:
            shuffle.release()
        if keys is not None:
            discard(keys)
        raise
    finally:
        task_reports.close()
    return Indexed(ratings, KeyTable(keys, firsts), (sent, replies))


class _Kinds(NamedTuple):
    """A bucket's number of keys and one of them, for users and products."""

    counts: tuple[int, int]
    examples: tuple[Key | None, Key | None]


def _firsts(reports: list[_Kinds]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    firsts = []
    for side, name in enumerate(ID_NAMES):
        counts = [report.counts[side] for report in reports]
        kinds = {type(e): e for r in reports if (e := r.examples[side]) is not None}
        if not kinds:
            raise RatingError("RDD is empty: there is nothing to index.")
        if len(kinds) > 1:
            raise mixed(name, kinds[str], kinds[int])
        if sum(counts) > INT32_MAX:
            raise RatingError(f"There are {sum(counts)} {name} keys; at most {INT32_MAX} get ids.")
        firsts.append(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    return firsts[0], firsts[1]


@spark_task
def _encode(
    partitions: int, task_reports: TaskReports, partition: int, elements: Iterable[Any]
) -> Iterator[tuple[int, Any]]:
    """The coded ratings, to this very partition, and each bucket's keys of both sides to it."""
    coders = Coder(), Coder()
    try:
        blocks = list(_coded(coders, partition, iter(elements)))
        sides = [coder.keys() for coder in coders]
    except (RddalsError, ValueError) as error:
        if not isinstance(error, RddalsError):  # a key that is too large, or no text
            error = RatingError(f"partition {partition}: key {error}.")
        # Raised here, Spark would try again and then bury it in a Java traceback.
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
            except ValueError as error:  # a key that is none
                raise RatingError(f"{origin}: key {error}.") from None
            continue
        rows.extend(islice(elements, ROWS_PER_BATCH - 1))
        try:
            if not all(issubclass(kind, ROW_TYPES) for kind in set(map(type, rows))):
                raise TypeError
            users, products, ratings = zip(*rows, strict=True)
            codes = coders[0].code(users), coders[1].code(products)
            values = np.array(ratings, dtype=np.float64)
            if values.ndim != 1:
                raise TypeError
        except (TypeError, ValueError, OverflowError):
            raise _first_bad_row(rows, partition, row) from None
        origin = f"partition {partition} from row {row}"
        yield RatingBlock.from_columns(codes[0], codes[1], values, origin=origin)
        row += len(rows)


def _first_bad_row(rows: list[Any], partition: int, first: int) -> RddalsError:
    """The error for the first row that cannot be read; only ever called when there is one."""
    for number, row in enumerate(rows, start=first):
        where = f"partition {partition}, row {number}"
        if not isinstance(row, ROW_TYPES):
            return RatingTypeError(f"{where}: {row!r} is not a rating. {REMEDY}")
        if len(row) != 3:
            return RatingError(f"{where}: {row!r} is not a rating. {REMEDY}")
        try:
            if np.ndim(row[2]):
                raise TypeError
            float(row[2])
        except (TypeError, ValueError, OverflowError):
            return RatingError(f"{where}: rating {row[2]!r} is not a number. {REMEDY}")
        for name, key in zip(ID_NAMES, row[:2], strict=True):
            try:
                checked_key(key)
            except ValueError as error:
                return RatingError(f"{where}: {name} key {error}.")
    return RatingError(f"partition {partition}: rows from {first} on cannot be read. {REMEDY}")


@spark_task
def _keys(
    task_reports: TaskReports, partition: int, pieces: Iterable[tuple[int, Any]]
) -> Iterator[Keys]:
    lists: tuple[list[list[Key]], list[list[Key]]] = [], []
    for _, piece in pieces:
        if not isinstance(piece, CodedRatings):
            side, _, keys = piece
            lists[side].append(keys)
    try:
        found = Keys.distinct(*lists)
    except RddalsError as error:
        task_reports.add("error", partition, error)
        return
    sides = found.users, found.products
    users, products = (keys[0] if keys else None for keys in sides)
    task_reports.add("kinds", partition, _Kinds((len(sides[0]), len(sides[1])), (users, products)))
    yield found


@spark_task
def _reply(
    firsts: tuple[NDArray[np.int64], NDArray[np.int64]], bucket: int, records: Iterable[Any]
) -> Iterator[tuple[int, tuple[int, int, NDArray[np.int32]]]]:
    """To each partition that asked, the ids of its keys, in the order in which it asked."""
    places: list[dict[Key, int]] = []
    for record in records:
        if isinstance(record, Keys):
            for side in (0, 1):
                first = int(firsts[side][bucket])
                places.append({key: id_ for id_, key in enumerate(record.of_side(side), first)})
        elif not isinstance(record[1], CodedRatings):
            side, origin, keys = record[1]
            place = places[side]
            yield origin, (side, bucket, np.array([place[key] for key in keys], dtype=np.int32))


@spark_task
def _identified(records: Iterable[tuple[int, Any]]) -> Iterator[RatingBlock]:
    coded: CodedRatings | None = None
    replies: tuple[dict[int, NDArray[np.int32]], dict[int, NDArray[np.int32]]] = {}, {}
    for _, record in records:
        if isinstance(record, CodedRatings):
            coded = record
        elif isinstance(record[2], np.ndarray):
            side, bucket, ids = record
            replies[side][bucket] = ids
    if coded is not None and len(coded.ratings):
        yield coded.identified(replies)
