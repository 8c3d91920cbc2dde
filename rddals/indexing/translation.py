"""Keys in the arguments of a model, translated to ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import numpy as np
from pyspark import RDD, Broadcast

from rddals.blocks.sides import ID_NAMES, PRODUCTS, USERS
from rddals.errors import ModelReleasedError, RatingTypeError, SettingError, UnknownIdError
from rddals.indexing.key_table import KeyTable, is_key_pair
from rddals.indexing.keys import Key, checked_key
from rddals.model.matrix import MatrixFactorizationModel
from rddals.rdds.context import is_stopped
from rddals.rdds.frames import Columns, key_rows
from rddals.rdds.ingest import prepare
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import spark_task

FLOAT32_MAX = float(np.finfo(np.float32).max)


class KeyTranslator:
    """Translates keys and ids of a key table, which it retains until `release`."""

    def __init__(self, keys: KeyTable) -> None:
        self._table = keys.retain()
        self._broadcasts: dict[int, Broadcast[list[Key]]] = {}
        self._released = False

    @property
    def table(self) -> KeyTable:
        """The key table; raises `ModelReleasedError` if it was released."""
        if self._released or is_stopped(self._table.buckets.context):
            raise ModelReleasedError(
                "The keys of this model were released by unpersist(), or its SparkContext stopped; "
                "save() the model before that and load it."
            )
        return self._table

    def release(self) -> None:
        """Release the table and the broadcasts."""
        if not self._released and not is_stopped(self._table.buckets.context):
            self._table.release()
            for broadcast in self._broadcasts.values():
                broadcast.destroy()
        self._broadcasts.clear()
        self._released = True

    def id(self, side: int, key: Any, *, unknown: bool = False) -> int:
        """Return the id of a key, or -1 for an unknown key if `unknown` keys are allowed."""
        try:
            checked = checked_key(key)
        except ValueError as error:
            raise SettingError(f"{ID_NAMES[side]} {error}.") from None
        (id_,) = self._ids_of(side, ID_NAMES[side], [checked])
        if id_ is not None:
            return id_
        if unknown:
            return -1
        raise _unknown(side, key)

    def ids(self, side: int, name: str, keys: Any) -> list[int]:
        """Return the ids of known keys in an argument with that name."""
        try:
            is_text = isinstance(keys, (str, bytes))
            checked = [checked_key(key) for key in ((None,) if is_text else keys)]
        except (TypeError, ValueError):
            raise SettingError(f"{name} must be a sequence of keys but got {keys!r}.") from None
        return [id_ for id_ in self._ids_of(side, name, checked) if id_ is not None]

    @contextmanager
    def ratings_with_ids(self, seen: Any) -> Iterator[RDD[tuple[int, int, float]] | None]:
        """Yield the ratings in `seen` with ids in place of keys; they are read in the context."""
        if seen is None:
            yield None
            return
        prepare(seen, Columns())
        rows = seen if isinstance(seen, RDD) else key_rows(seen)
        with closing(TaskReports(rows.context)) as task_reports:
            pairs = rows.mapPartitionsWithIndex(partial(_users_and_products, task_reports))
            by_user = self.table.with_ids(USERS, pairs)
            by_product = self.table.with_ids(PRODUCTS, by_user.map(swapped))
            yield by_product.map(_as_seen)
            for error in task_reports.take("error"):
                raise error

    def all_keys(self, side: int) -> Broadcast[list[Key]]:
        """Return a broadcast of all keys of a side, by id."""
        if side not in self._broadcasts:
            keys = self.table
            self._broadcasts[side] = keys.buckets.context.broadcast(keys.all_keys(side))
        return self._broadcasts[side]

    def _ids_of(self, side: int, name: str, keys: list[Key]) -> list[int | None]:
        """Return the ids of the keys in an argument, None for unknown keys."""
        table = self.table
        ids = table.ids_of(side, keys)
        for key, id_ in zip(keys, ids, strict=True):
            # "7" in place of 7 is a mistake by the caller, not an unknown key.
            if id_ is None and type(key) is not (kind := table.kinds[side]):
                kinds = "strings" if kind is str else "integers"
                raise SettingError(
                    f"{name}: {key!r} is not a {ID_NAMES[side]} key: those are {kinds}; pass one "
                    "of them."
                )
        return ids


def ids_without_key(model: MatrixFactorizationModel, keys: KeyTable) -> str | None:
    """Describe an id of the model that has no key, or return None if all ids have one."""
    for side, (low, high) in enumerate(model.id_bounds()):
        count = int(keys.firsts[side][-1])
        if low < 0 or high >= count:
            return f"it knows {ID_NAMES[side]} id {high if low >= 0 else low}, they have {count}"
    return None


def _unknown(side: int, key: Key) -> UnknownIdError:
    return UnknownIdError(
        f"{ID_NAMES[side]} {key!r} not found in the model: it has no rating in the training data. "
        "Train with ratings of it."
    )


@contextmanager
def errors_by_key(*keys: tuple[int, Key]) -> Iterator[None]:
    """Report an unknown id by its key."""
    try:
        yield
    except UnknownIdError as error:
        for side, key in keys:
            if str(error).startswith(f"{ID_NAMES[side]}Id"):
                raise _unknown(side, key) from None
        raise


def swapped(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """Exchange the elements of a pair."""
    first, second = pair
    return second, first


def _is_rating(row: Any) -> bool:
    """Return whether `row` is two keys and a number that is finite in float32."""
    if not (isinstance(row, (tuple, list)) and len(row) == 3):
        return False
    try:
        finite = abs(float(row[2])) <= FLOAT32_MAX  # False for NaN
    except (TypeError, ValueError, OverflowError):
        return False
    return finite and is_key_pair(row[:2]) and is_key_pair(row[1:])


@spark_task
def _users_and_products(
    task_reports: TaskReports, partition: int, rows: Iterable[Any]
) -> Iterator[tuple[Any, Any]]:
    for number, row in enumerate(rows):
        if not _is_rating(row):
            error = RatingTypeError(
                f"excludeSeen holds {row!r} (partition {partition}, row {number}); pass ratings "
                "(user key, product key, rating)."
            )
            # Raised in a task, the error would be retried and wrapped in a Java traceback.
            task_reports.add("error", partition, error)
            return
        yield row[0], row[1]


def _as_seen(pair: tuple[int, int]) -> tuple[int, int, float]:
    product, user = pair
    return user, product, 1.0
