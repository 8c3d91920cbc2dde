"""Ratings in a DataFrame: choosing the columns, and passing them to Python."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, SparkContext
from pyspark.sql import DataFrame

from rddals.blocks.column_names import ROLES, column_places, find_columns
from rddals.blocks.ratings import RatingBlock
from rddals.errors import RatingError, RatingTypeError, SettingError
from rddals.local_workers import is_local
from rddals.rdds.worker_tuning import spark_task

#: Function from a list of keys to their numbers.
Code = Callable[[list[Any]], NDArray[np.int32]]


ARGUMENTS = ("userCol", "itemCol", "ratingCol")


class Columns(NamedTuple):
    """Names of a DataFrame's columns; None for a name that the caller does not give."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None

    @classmethod
    def checked(cls, user: Any, item: Any, rating: Any) -> Columns:
        """Return the caller's names; raise `SettingError` if one is not a string."""
        columns = cls(user, item, rating)
        for argument, name in zip(ARGUMENTS, columns, strict=True):
            if name is not None and not isinstance(name, str):
                raise SettingError(f"{argument} must be the name of a column but got {name!r}.")
        return columns

    def described(self) -> str:
        """Return the given names as they were passed, such as ``userCol='u'``."""
        given = zip(ARGUMENTS, self, strict=True)
        return ", ".join(f"{name}={value!r}" for name, value in given if value is not None)


NUMBER = "a number"


class ArrowColumns(NamedTuple):
    """Keys and ratings of one partition, as Arrow's chunked arrays."""

    users: Any
    items: Any
    ratings: Any

    def coded(self, users: Code, items: Code, origin: str) -> RatingBlock:
        """Return the ratings with a number for each key.

        A null key is passed to `users` or `items` like any other.
        """
        values = np.concatenate([np.empty(0), *map(_as_array, self.ratings.chunks)])
        user_codes = _dictionary_codes(self.users, users)
        item_codes = _dictionary_codes(self.items, items)
        return RatingBlock.from_columns(user_codes, item_codes, values, origin=origin)


def columns_of(frame: DataFrame, columns: Columns) -> RDD[Any]:
    """Return the ratings of a DataFrame: Arrow batches if there is pyarrow, else rows.

    The named columns are read; without names, those with common names for user, item and rating.
    Columns that Spark has numbered (``_1``) are taken by position.
    """
    from pyspark.sql.types import BooleanType, NumericType, StringType

    number = (BooleanType, NumericType, StringType)
    return _read(frame, columns, (number, number, number), NUMBER, _read_numbers)


def keys_of(frame: DataFrame, columns: Columns) -> RDD[Any]:
    """Return the ratings of a DataFrame whose ids are strings or integers of any size.

    There is one `ArrowColumns` per partition if there is pyarrow; else the elements are rows.
    """
    return _read(frame, columns, *_key_types(), _read_keys)


def key_rows(frame: DataFrame) -> RDD[Any]:
    """Return the ratings of a DataFrame with keys, as rows."""
    return _selected(frame, Columns(), *_key_types()).rdd


def _key_types() -> tuple[Any, str]:
    from pyspark.sql.types import BooleanType, IntegralType, NumericType, StringType

    key, number = (IntegralType, StringType), (BooleanType, NumericType)
    return (key, key, number), "an integer or a string"


def _read(frame: DataFrame, columns: Columns, types: Any, remedy: str, reader: Any) -> RDD[Any]:
    frame = _selected(frame, columns, types, remedy)
    if not _have_arrow(frame.sparkSession._sc):
        return frame.rdd
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = to_arrow_schema(frame.schema).serialize().to_pybytes()
    return arrow_batches(frame).mapPartitionsWithIndex(partial(reader, schema))


def _selected(frame: DataFrame, columns: Columns, types: Any, remedy: str) -> DataFrame:
    """Select the three columns, which must be of the given types.

    Spark reads dots and backticks in a column's name as syntax, and rejects a name that repeats as
    ambiguous. So columns are renamed by position first.
    """
    places = _places(list(frame.columns), columns)
    frame = frame.toDF(*(f"column{i}" for i in range(len(frame.columns))))
    frame = frame.select(*(frame.schema[place].name for place in places))
    for role, place, field, allowed in zip(
        Columns._fields, places, frame.schema.fields, types, strict=True
    ):
        if not isinstance(field.dataType, allowed):
            expected = NUMBER if role == "rating" else remedy
            raise RatingTypeError(
                f"Column {place} of the DataFrame, the {role}, is of type "
                f"{field.dataType.simpleString()}; cast it to {expected}."
            )
    return frame


def _places(names: list[str], columns: Columns) -> list[int]:
    """Return the positions of the user's, the item's and the rating's column."""
    if len(names) < 3:
        raise RatingError(
            f"a DataFrame of ratings needs three columns (user, product, rating) but has {names}."
        )
    if any(name is not None for name in columns):
        requested = zip(columns, ARGUMENTS, range(3), strict=True)
        places = [_named(names, *column) for column in requested]
        if len(set(places)) < len(places):
            raise SettingError(
                f"{columns.described()} name one column for two purposes, of {names}. Pass three."
            )
        return places
    return column_places(names, "Pass userCol, itemCol and ratingCol.")


def _named(names: list[str], requested: Any, argument: str, role: int) -> int:
    """Return the position of the requested column; without a request, of one with a common name."""
    if requested is None:
        place = find_columns(names)[role]
        requested = ROLES[role] if place is None else names[place]
    matches = [place for place, name in enumerate(names) if name == requested]
    # Like Spark, ignore case if no name matches exactly.
    matches = matches or [p for p, name in enumerate(names) if name.lower() == requested.lower()]
    if len(matches) == 1:
        return matches[0]
    raise SettingError(
        f"{argument}: there is {'more than one' if matches else 'no'} column {requested!r} among "
        f"{names}. Pass the exact name of one."
    )


def arrow_batches(frame: DataFrame) -> RDD[bytes]:
    """Return a DataFrame as serialised Arrow record batches, in its own partitions.

    ``DataFrame.mapInArrow``, the public way, takes about four times as long: its batches go to a
    Python worker and back, and then as pickled rows to a worker again. So this uses the JVM's RDD
    of batches directly.
    """
    from pyspark.serializers import NoOpSerializer

    batches = frame._jdf.toArrowBatchRdd().toJavaRDD()
    return RDD(batches, frame.sparkSession._sc, NoOpSerializer())


def _have_arrow(sc: SparkContext) -> bool:
    """Return whether the driver and the workers have pyarrow.

    The Python of a cluster's workers may differ from the driver's, so one worker is checked too.
    """
    if importlib.util.find_spec("pyarrow") is None:
        return False
    if is_local(sc):
        return True
    return bool(sc.parallelize([0], 1).map(_finds_arrow).first())


def _finds_arrow(_: int) -> bool:
    return importlib.util.find_spec("pyarrow") is not None


@spark_task
def _read_numbers(schema: bytes, partition: int, batches: Iterable[bytes]) -> Iterator[Any]:
    """Yield each Arrow record batch as three arrays, or as rows if it does not convert."""
    from pyarrow import ArrowInvalid, ipc, py_buffer

    arrow_schema = ipc.read_schema(py_buffer(schema))
    for batch in batches:
        columns = ipc.read_record_batch(py_buffer(batch), arrow_schema).columns
        try:
            if any(column.null_count for column in columns):
                raise ArrowInvalid("arrays of numbers cannot hold nulls")
            yield tuple(map(_as_array, columns, (True, True, False)))
        except ArrowInvalid:  # a null, or a string that Arrow cannot convert: leave it to Python
            yield from zip(*(column.to_pylist() for column in columns), strict=True)


@spark_task
def _read_keys(schema: bytes, partition: int, batches: Iterable[bytes]) -> Iterator[ArrowColumns]:
    """Yield the columns of a whole partition."""
    from pyarrow import Table, ipc, py_buffer

    arrow_schema = ipc.read_schema(py_buffer(schema))
    record_batches = [ipc.read_record_batch(py_buffer(batch), arrow_schema) for batch in batches]
    if record_batches:
        yield ArrowColumns(*Table.from_batches(record_batches).columns)


def _dictionary_codes(column: Any, code: Code) -> Any:
    """Return the number of each key in a chunked array; Python sees distinct keys only."""
    chunks = column.dictionary_encode(null_encoding="encode").chunks
    if not chunks:
        return np.empty(0, np.int32)
    # The chunks share one dictionary that grows: the last chunk has all of it.
    numbers = code(chunks[-1].dictionary.to_pylist())
    return np.concatenate([numbers[chunk.indices.to_numpy()] for chunk in chunks])


def _as_array(column: Any, is_id: bool = False) -> Any:
    """Return a column as numbers, with NaN for null."""
    import pyarrow
    from pyarrow import compute, types

    if types.is_string(column.type) or types.is_large_string(column.type):
        column = compute.utf8_trim_whitespace(column)
        if compute.any(compute.match_substring(column, "x", ignore_case=True)).as_py():
            raise pyarrow.ArrowInvalid("hexadecimal")  # which Python's conversion refuses
        column = column.cast(pyarrow.int64() if is_id else pyarrow.float64())
    elif not (types.is_integer(column.type) or types.is_floating(column.type)):
        column = column.cast(pyarrow.float64())  # decimals and booleans
    return np.asarray(column.to_numpy(zero_copy_only=False))
