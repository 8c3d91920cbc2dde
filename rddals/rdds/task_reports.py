"""Reports from tasks to the driver, filed by topic and block."""

from __future__ import annotations

from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from pyspark import SparkContext
from pyspark.accumulators import AccumulatorParam

__all__ = ["TaskReports"]


class _Merge(AccumulatorParam[dict[Any, Any]]):
    def zero(self, value: dict[Any, Any]) -> dict[Any, Any]:
        return {}

    def addInPlace(self, value1: dict[Any, Any], value2: dict[Any, Any]) -> dict[Any, Any]:
        value1.update(value2)
        return value1


_accumulators: WeakKeyDictionary[SparkContext, Any] = WeakKeyDictionary()


_numbers = count()


_open: set[int] = set()


class TaskReports:
    """What tasks tell the driver beside their results.

    Reports are filed under a key. A task that is run again files the same report under the same
    key, so nothing counts twice, as in a plain accumulator it would. A block that is lost and
    recomputed long after reports to a book that is closed: such reports are dropped.

    All books of a context share one accumulator, which stays. PySpark never forgets an
    accumulator by itself, and if it is made to, PySpark 3.5 stops receiving updates of any.
    """

    def __init__(self, sc: SparkContext) -> None:
        if sc not in _accumulators:
            _accumulators[sc] = sc.accumulator({}, _Merge())
        self._accumulator = _accumulators[sc]
        self._number = next(_numbers)
        _open.add(self._number)

    def add(self, topic: Any, block: int, report: Any) -> None:
        """In a task: file a block's report on a topic."""
        self._accumulator.add({(self._number, topic, block): report})

    def take(self, topic: Any) -> list[Any]:
        """On the driver: remove and return the reports on a topic, in the order of the blocks."""
        reports = self._accumulator.value
        mine = (self._number, topic)
        return [reports.pop(key) for key in sorted(k for k in reports if k[:2] == mine)]

    def close(self) -> None:
        """Drop what is filed here, now or later."""
        _open.discard(self._number)
        reports = self._accumulator.value
        for key in [key for key in reports if key[0] not in _open]:
            del reports[key]
