"""From whatever holds ratings to an RDD of `RatingBlock`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.sql import DataFrame

from rddals.blocks.ratings import RatingBlock
from rddals.errors import RatingError, RatingTypeError
from rddals.rdds.shipping import ship
from rddals.rdds.spark import arrow_batches, is_stopped

__all__ = ["rating_source", "read_batches"]

#: Rows that are turned into columns at a time.
ROWS_PER_BATCH = 1 << 16
#: Ratings gathered before they are split by block: enough that the pieces are worth a record.
RATINGS_PER_PIECE = 1 << 20


def rating_source(ratings: Any) -> RDD[Any]:
    """The RDD that holds `ratings`; nothing is read yet.

    Raises
    ------
    RatingTypeError
        If `ratings` is neither an RDD nor a DataFrame.
    RatingError
        If it is a DataFrame of fewer than three columns.
    """
    if not isinstance(ratings, (RDD, DataFrame)):
        raise RatingTypeError(
            "Ratings should be represented by either an RDD or a DataFrame, but got "
            f"{type(ratings)}."
        )
    sc = ratings.context if isinstance(ratings, RDD) else ratings.sparkSession._sc
    if is_stopped(sc):
        raise RatingTypeError("The SparkContext of these ratings is stopped; start from a new one.")
    ship(sc)
    return ratings if isinstance(ratings, RDD) else _from_dataframe(ratings)


def read_batches(partition: int, elements: Iterable[Any]) -> Iterator[RatingBlock]:
    """Validated batches of one partition's elements, about `RATINGS_PER_PIECE` ratings each.

    An element is a ``Rating`` or another (user, product, rating), or a whole batch in columns: a
    `RatingBlock` or a tuple of three NumPy arrays.

    Raises
    ------
    RatingError, RatingTypeError
        For the first element that cannot be trained on; the message names it and its place.
    """
    held: list[RatingBlock] = []
    size = 0
    for block in _blocks(partition, iter(elements)):
        held.append(block)
        size += len(block)
        if size >= RATINGS_PER_PIECE:
            yield RatingBlock.concatenate(held)
            held, size = [], 0
    if size:
        yield RatingBlock.concatenate(held)


def _blocks(partition: int, elements: Iterator[Any]) -> Iterator[RatingBlock]:
    row = 0
    while rows := list(islice(elements, 1)):
        if _is_batch(rows[0]):
            yield _from_batch(rows[0], f"partition {partition}, batch {row}")
            row += 1
            continue
        rows.extend(islice(elements, ROWS_PER_BATCH - 1))
        try:
            block = RatingBlock.from_rows(rows, origin=f"partition {partition}", first_row=row)
        except (RatingError, RatingTypeError):
            # Looked at only now, since almost nobody mixes rows and batches.
            first = next((i for i, other in enumerate(rows) if _is_batch(other)), None)
            if first is None:
                raise
            elements = chain(rows[first:], elements)
            rows = rows[:first]
            block = RatingBlock.from_rows(rows, origin=f"partition {partition}", first_row=row)
        yield block
        row += len(rows)


def _is_batch(element: Any) -> bool:
    if isinstance(element, RatingBlock):
        return True
    return (
        isinstance(element, (tuple, list))
        and len(element) == 3
        and all(isinstance(column, np.ndarray) and column.ndim == 1 for column in element)
    )


def _from_batch(batch: Any, origin: str) -> RatingBlock:
    if isinstance(batch, RatingBlock):
        batch = (batch.users, batch.products, batch.ratings)
    return RatingBlock.from_columns(*batch, origin=origin)


def _from_dataframe(frame: Any) -> RDD[Any]:
    """The first three columns: as Arrow batches where they are numbers, else row by row."""
    from pyspark.sql.types import BooleanType, NumericType

    if len(frame.columns) < 3:
        raise RatingError(
            f"a DataFrame of ratings needs three columns (user, product, rating) "
            f"but has {frame.columns}."
        )
    # By position, whatever the columns are called: names may hold dots or backticks, or repeat.
    frame = frame.toDF(*(f"column{i}" for i in range(len(frame.columns))))
    frame = frame.select("column0", "column1", "column2")
    kinds = [field.dataType for field in frame.schema.fields]
    numeric = all(isinstance(kind, (NumericType, BooleanType)) for kind in kinds)
    if not numeric or importlib.util.find_spec("pyarrow") is None:
        rows: RDD[Any] = frame.rdd
        return rows
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = to_arrow_schema(frame.schema).serialize().to_pybytes()
    return arrow_batches(frame).map(partial(_columns, schema))


def _columns(schema: bytes, batch: bytes) -> tuple[NDArray[Any], ...]:
    """The columns of an Arrow record batch."""
    from pyarrow import ipc, py_buffer

    columns = ipc.read_record_batch(py_buffer(batch), ipc.read_schema(py_buffer(schema))).columns
    # A null comes out as NaN, which validation then reports.
    return tuple(
        np.asarray(column.cast(_numpy_type(column)).to_numpy(zero_copy_only=False))
        for column in columns
    )


def _numpy_type(column: Any) -> Any:
    """The Arrow type to read a column as: decimals and booleans have no NumPy number of theirs."""
    import pyarrow

    kind = column.type
    plain = pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)
    return kind if plain else pyarrow.float64()
