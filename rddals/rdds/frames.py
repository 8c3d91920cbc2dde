"""Ratings out of a DataFrame: which columns, and how they get to Python."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD, SparkContext
from pyspark.sql import DataFrame

from rddals.blocks.ratings import RatingBlock
from rddals.errors import RatingError, RatingTypeError, SettingError
from rddals.rdds.context import is_local
from rddals.rdds.worker_tuning import spark_task

__all__ = ["ArrowColumns", "Columns", "columns_of", "key_rows", "keys_of"]

#: Numbers keys.
Code = Callable[[list[Any]], NDArray[np.int32]]


ARGUMENTS = ("userCol", "itemCol", "ratingCol")


class Columns(NamedTuple):
    """Names of a DataFrame's columns, as asked for; None where nothing is."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None

    @classmethod
    def checked(cls, user: Any, item: Any, rating: Any) -> Columns:
        """What a caller passed, or a `SettingError` that says what to pass."""
        columns = cls(user, item, rating)
        for argument, name in zip(ARGUMENTS, columns, strict=True):
            if name is not None and not isinstance(name, str):
                raise SettingError(f"{argument} must be the name of a column but got {name!r}.")
        return columns

    def described(self) -> str:
        """What was asked for, as arguments."""
        given = zip(ARGUMENTS, self, strict=True)
        return ", ".join(f"{name}={value!r}" for name, value in given if value is not None)


#: What columns are called where no names are given.
USUAL = ("user", "item", "rating")
#: What MLlib's RDD API calls the item.
PRODUCT = "product"
NUMBER = "a number"


class ArrowColumns(NamedTuple):
    """Keys and ratings of one partition: Arrow's chunked arrays."""

    users: Any
    items: Any
    ratings: Any

    def coded(self, users: Code, items: Code, origin: str) -> RatingBlock:
        """The ratings with a number for each key; null is a key as well, and its coder's matter."""
        values = np.concatenate([np.empty(0), *map(_as_array, self.ratings.chunks)])
        user_codes = _dictionary_codes(self.users, users)
        item_codes = _dictionary_codes(self.items, items)
        return RatingBlock.from_columns(user_codes, item_codes, values, origin=origin)


def columns_of(frame: DataFrame, columns: Columns) -> RDD[Any]:
    """The ratings of a DataFrame: as Arrow batches where there is pyarrow, else row by row.

    Columns are those named; without any name those called user, item (or product) and rating;
    and if these are not all there, the first three.
    """
    from pyspark.sql.types import BooleanType, NumericType, StringType

    number = (BooleanType, NumericType, StringType)
    return _read(frame, columns, (number, number, number), NUMBER, _read_numbers)


def keys_of(frame: DataFrame, columns: Columns) -> RDD[Any]:
    """The ratings of a DataFrame whose ids are strings or integers of any size.

    One `ArrowColumns` per partition where there is pyarrow, else row by row.
    """
    return _read(frame, columns, *_key_types(), _read_keys)


def key_rows(frame: DataFrame) -> RDD[Any]:
    """The ratings of a DataFrame with keys, row by row."""
    return _selected(frame, Columns(), *_key_types()).rdd


def _key_types() -> tuple[Any, str]:
    from pyspark.sql.types import BooleanType, IntegralType, NumericType, StringType

    key, number = (IntegralType, StringType), (BooleanType, NumericType)
    return (key, key, number), "an integer or a string"


def _read(frame: DataFrame, columns: Columns, types: Any, remedy: str, reader: Any) -> RDD[Any]:
    frame = _selected(frame, columns, types, remedy)
    if not _have_arrow(frame.sparkSession._sc):
        rows: RDD[Any] = frame.rdd
        return rows
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = to_arrow_schema(frame.schema).serialize().to_pybytes()
    return arrow_batches(frame).mapPartitionsWithIndex(partial(reader, schema))


def _selected(frame: DataFrame, columns: Columns, types: Any, remedy: str) -> DataFrame:
    """The three columns, which must be of the types asked for."""
    places = _places(list(frame.columns), columns)
    # By position from here on: names may hold dots or backticks, or repeat.
    frame = frame.toDF(*(f"column{i}" for i in range(len(frame.columns))))
    frame = frame.select(*(frame.schema[place].name for place in places))
    for role, place, field, allowed in zip(
        Columns._fields, places, frame.schema.fields, types, strict=True
    ):
        if not isinstance(field.dataType, allowed):
            wanted = NUMBER if role == "rating" else remedy
            raise RatingTypeError(
                f"Column {place} of the DataFrame, the {role}, is of type "
                f"{field.dataType.simpleString()}; cast it to {wanted}."
            )
    return frame


def _places(names: list[str], columns: Columns) -> list[int]:
    """Positions of the user's, the item's and the rating's column."""
    if len(names) < 3:
        raise RatingError(
            f"a DataFrame of ratings needs three columns (user, product, rating) but has {names}."
        )
    if any(name is not None for name in columns):
        asked = zip(columns, ARGUMENTS, USUAL, strict=True)
        places = [_named(names, *column) for column in asked]
        if len(set(places)) < len(places):
            raise SettingError(
                f"{columns.described()} name one column for two purposes, of {names}; pass three."
            )
        return places
    lower = [name.lower() for name in names]  # as Spark looks for columns
    once = {name: place for place, name in enumerate(lower) if lower.count(name) == 1}
    found = [once.get("user"), once.get("item", once.get(PRODUCT)), once.get("rating")]
    by_name = [place for place in found if place is not None]
    if len(by_name) == 3:
        return by_name
    misplaced = [
        names[place] for role, place in enumerate(found) if place is not None and place != role
    ]
    if misplaced:
        raise SettingError(
            f"Of columns {names} the first three would be taken for user, item and rating, but "
            f"{misplaced[0]!r} stands elsewhere; pass userCol, itemCol and ratingCol."
        )
    return [0, 1, 2]


def _named(names: list[str], asked: Any, argument: str, usual: str) -> int:
    """The position of one column that is named, or called as usual."""
    wanted = [asked] if asked is not None else [usual, PRODUCT] if usual == "item" else [usual]
    for name in wanted:
        found = [place for place, other in enumerate(names) if other == name]
        # Spark does not tell upper from lower case either, unless it has to.
        found = found or [p for p, other in enumerate(names) if other.lower() == name.lower()]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise SettingError(
        f"{argument}: there is {'more than one' if found else 'no'} column {name!r} among {names}; "
        "pass the name of one."
    )


def arrow_batches(frame: DataFrame) -> RDD[bytes]:
    """A DataFrame as serialised Arrow record batches, in its own partitions.

    ``DataFrame.mapInArrow``, the public way, takes about four times as long: its batches go to a
    Python worker and back, and as pickled rows to a worker again.
    """
    from pyspark.serializers import NoOpSerializer

    batches = frame._jdf.toArrowBatchRdd().toJavaRDD()
    return RDD(batches, frame.sparkSession._sc, NoOpSerializer())


def _have_arrow(sc: SparkContext) -> bool:
    """Whether pyarrow is there, with the driver and with the workers."""
    if importlib.util.find_spec("pyarrow") is None:
        return False
    if is_local(sc):
        return True
    return bool(sc.parallelize([0], 1).map(_finds_arrow).first())


def _finds_arrow(_: int) -> bool:
    return importlib.util.find_spec("pyarrow") is not None


@spark_task
def _read_numbers(schema: bytes, partition: int, batches: Iterable[bytes]) -> Iterator[Any]:
    """Each Arrow record batch as a batch in columns."""
    from pyarrow import ArrowInvalid, ipc, py_buffer

    arrow_schema = ipc.read_schema(py_buffer(schema))
    for batch in batches:
        columns = ipc.read_record_batch(py_buffer(batch), arrow_schema).columns
        try:
            if any(column.null_count for column in columns):
                raise ArrowInvalid("arrays of numbers have no null")
            yield tuple(map(_as_array, columns, (True, True, False)))
        except ArrowInvalid:  # nor a word that is no number, or that only Python reads as one
            yield from zip(*(column.to_pylist() for column in columns), strict=True)


@spark_task
def _read_keys(schema: bytes, partition: int, batches: Iterable[bytes]) -> Iterator[ArrowColumns]:
    """The columns of a whole partition."""
    from pyarrow import Table, ipc, py_buffer

    arrow_schema = ipc.read_schema(py_buffer(schema))
    read = [ipc.read_record_batch(py_buffer(batch), arrow_schema) for batch in batches]
    if read:
        yield ArrowColumns(*Table.from_batches(read).columns)


def _dictionary_codes(column: Any, code: Code) -> Any:
    """The number of each key of a chunked array; only different keys are looked at in Python."""
    chunks = column.dictionary_encode(null_encoding="encode").chunks
    if not chunks:
        return np.empty(0, np.int32)
    # All chunks are encoded with one dictionary, of which the last has seen the most.
    numbers = code(chunks[-1].dictionary.to_pylist())
    return np.concatenate([numbers[chunk.indices.to_numpy()] for chunk in chunks])


def _as_array(column: Any, is_id: bool = False) -> Any:
    """A column as numbers; a null comes out as NaN."""
    import pyarrow
    from pyarrow import compute, types

    if types.is_string(column.type) or types.is_large_string(column.type):
        column = compute.utf8_trim_whitespace(column)
        if compute.any(compute.match_substring(column, "x", ignore_case=True)).as_py():
            raise pyarrow.ArrowInvalid("hexadecimal")  # which Python does not take for a number
        column = column.cast(pyarrow.int64() if is_id else pyarrow.float64())
    elif not (types.is_integer(column.type) or types.is_floating(column.type)):
        column = column.cast(pyarrow.float64())  # decimals and booleans
    return np.asarray(column.to_numpy(zero_copy_only=False))
