"""Reading RDDs and DataFrames of ratings as batches of `RatingBlock`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import Any, cast

import numpy as np
from pyspark import RDD
from pyspark.sql import DataFrame

from rddals.blocks.ratings import RatingBlock, in_order
from rddals.errors import RatingError, RatingTypeError, SettingError
from rddals.rdds.context import is_stopped, refuse_connect
from rddals.rdds.frames import Columns, columns_of
from rddals.rdds.shipping import ship
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import gc_paused

#: Rows converted to columns at a time.
ROWS_PER_BATCH = 1 << 16
#: Ratings gathered before they are split by block, so that few records are shuffled.
RATINGS_PER_PIECE = 1 << 20


def rating_source(ratings: Any, columns: Columns | None = None) -> RDD[Any]:
    """Return the RDD that contains `ratings`, an RDD or a DataFrame, without reading it.

    Raise an error as `prepare` and `columns_of` do.
    """
    columns = columns or Columns()
    prepare(ratings, columns)
    return ratings if isinstance(ratings, RDD) else columns_of(ratings, columns)


def prepare(ratings: Any, columns: Columns) -> None:
    """Check that `ratings` can be read, and ship this package to the workers.

    Raise `RatingTypeError` unless they are an RDD or a DataFrame of a running context, and
    `SettingError` if columns of an RDD are named.
    """
    refuse_connect(ratings)
    if not isinstance(ratings, (RDD, DataFrame)):
        raise RatingTypeError(
            "Ratings should be represented by either an RDD or a DataFrame, but got "
            f"{type(ratings)}. Pass {_conversion(ratings)}."
        )
    sc = ratings.context if isinstance(ratings, RDD) else ratings.sparkSession._sc
    if is_stopped(sc):
        raise RatingTypeError("The SparkContext of these ratings is stopped. Use a new one.")
    if isinstance(ratings, RDD) and any(name is not None for name in columns):
        raise SettingError(
            f"{columns.described()} name columns of a DataFrame, but the ratings are an RDD. Leave "
            "them out."
        )
    ship(sc)


#: Calls that convert other tables of ratings, by the module of their class.
CONVERSIONS = {
    "pyspark.pandas": "ratings.to_spark()",
    "pandas": "spark.createDataFrame(ratings)",
    "polars": "spark.createDataFrame(ratings.to_pandas())",
    "pyarrow": "spark.createDataFrame(ratings.to_pandas())",
    "scipy.sparse": "sc.parallelize([(m.row, m.col, m.data)]) with m = ratings.tocoo()",
    "numpy": "sc.parallelize([tuple(ratings.T)])",
    "builtins": "sc.parallelize(ratings)",
}


def _conversion(ratings: Any) -> str:
    module = type(ratings).__module__
    for name, call in CONVERSIONS.items():
        if module == name or module.startswith(f"{name}."):
            return call
    return "sc.parallelize(rows) or spark.createDataFrame(rows)"


def read_batches(partition: int, elements: Iterable[Any]) -> Iterator[RatingBlock]:
    """Yield validated batches of one partition's elements, about `RATINGS_PER_PIECE` ratings each.

    An element is a ``Rating`` or another (user, product, rating), or a batch of columns: a
    `RatingBlock` or a tuple of three NumPy arrays. The first invalid element raises `RatingError`
    or `RatingTypeError`, with its value and position.
    """
    pending: list[RatingBlock] = []
    size = 0
    for block in _blocks(partition, iter(elements)):
        pending.append(block)
        size += len(block)
        if size >= RATINGS_PER_PIECE:
            yield RatingBlock.concatenate(pending)
            pending, size = [], 0
    if size:
        yield RatingBlock.concatenate(pending)


def usable_batches(
    task_reports: TaskReports, partition: int, elements: Iterable[Any]
) -> Iterator[RatingBlock]:
    """Yield batches of the valid ratings, and report the number of invalid ones as "skipped".

    Columns that differ in length or are not numeric raise `RatingError` or `RatingTypeError`.
    """
    skipped = 0
    for in_columns, group in groupby(elements, _is_batch):
        if in_columns:
            for number, batch in enumerate(group):
                columns = _columns(batch)
                origin = f"partition {partition}, batch {number}"
                RatingBlock.from_columns(*(column[:0] for column in columns), origin=origin)
                if len({len(column) for column in columns}) > 1:
                    RatingBlock.from_columns(*columns, origin=origin)
                usable = _usable(RatingBlock.from_columns, columns)
                skipped += len(columns[0]) - len(usable)
                yield usable
            continue
        while rows := _next_rows(group):
            usable = _usable(RatingBlock.from_rows, [rows])
            skipped += len(rows) - len(usable)
            yield usable
    task_reports.add("skipped", partition, skipped)


def _usable(read: Callable[..., RatingBlock], columns: Sequence[Any]) -> RatingBlock:
    """Return the valid ratings of `columns`; if `read` fails on them, read their halves."""
    length = len(columns[0])
    try:
        return read(*columns)
    except (RatingError, RatingTypeError):
        if length == 1:
            return RatingBlock.empty()
    halves = (slice(length // 2), slice(length // 2, length))
    return RatingBlock.concatenate(
        [_usable(read, [column[half] for column in columns]) for half in halves]
    )


def _blocks(partition: int, elements: Iterator[Any]) -> Iterator[RatingBlock]:
    row = 0
    while rows := list(islice(elements, 1)):
        if _is_batch(rows[0]):
            origin = f"partition {partition}, batch {row}"
            yield RatingBlock.from_columns(*_columns(rows[0]), origin=origin)
            row += 1
            continue
        with gc_paused():
            rows.extend(islice(elements, ROWS_PER_BATCH - 1))
        try:
            block = RatingBlock.from_rows(rows, origin=f"partition {partition}", first_row=row)
        except (RatingError, RatingTypeError):
            # Rows and batches are rarely mixed, so only an error leads to this check.
            first_batch = next((i for i, other in enumerate(rows) if _is_batch(other)), None)
            if first_batch is None:
                raise
            elements = chain(rows[first_batch:], elements)
            rows = rows[:first_batch]
            block = RatingBlock.from_rows(rows, origin=f"partition {partition}", first_row=row)
        yield block
        row += len(rows)


def _next_rows(elements: Iterator[Any]) -> list[Any]:
    with gc_paused():
        return list(islice(elements, ROWS_PER_BATCH))


def _is_batch(element: Any) -> bool:
    if isinstance(element, RatingBlock):
        return True
    return (
        isinstance(element, (tuple, list))
        and len(element) == 3
        and all(isinstance(column, np.ndarray) and column.ndim == 1 for column in element)
    )


def _columns(batch: Any) -> Sequence[Any]:
    if isinstance(batch, RatingBlock):
        return (batch.users, batch.products, batch.ratings)
    return cast("Sequence[Any]", in_order([batch], {type(batch)})[0])
