"""Reports from tasks to the driver, by topic and block."""

from __future__ import annotations

from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from pyspark import SparkContext
from pyspark.accumulators import AccumulatorParam


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
    """Reports that tasks send to the driver in addition to their results.

    Spark adds a task's accumulator updates once more if the task runs again. So a report is stored
    under a topic and a block, and the report of a second run replaces the first. Reports that
    arrive after `close`, such as those of a lost block that is recomputed much later, are dropped.

    PySpark never forgets an accumulator by itself, and if one is removed, PySpark 3.5 stops
    receiving the updates of all. So all instances of a context share one accumulator, which is
    never removed.
    """

    def __init__(self, sc: SparkContext) -> None:
        if sc not in _accumulators:
            _accumulators[sc] = sc.accumulator({}, _Merge())
        self._accumulator = _accumulators[sc]
        self._number = next(_numbers)
        _open.add(self._number)

    def add(self, topic: Any, block: int, report: Any) -> None:
        """Add a block's report on a topic; called in a task."""
        self._accumulator.add({(self._number, topic, block): report})

    def take(self, topic: Any) -> list[Any]:
        """Remove and return the reports on a topic, ordered by block; called on the driver."""
        reports = self._accumulator.value
        prefix = (self._number, topic)
        return [reports.pop(key) for key in sorted(k for k in reports if k[:2] == prefix)]

    def close(self) -> None:
        """Drop all reports of this instance, including those that arrive later."""
        _open.discard(self._number)
        reports = self._accumulator.value
        for key in [key for key in reports if key[0] not in _open]:
            del reports[key]
