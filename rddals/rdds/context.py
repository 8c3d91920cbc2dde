"""State of a SparkContext, and small jobs that run in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from pyspark import RDD, SparkContext
from pyspark.sql import SparkSession

from rddals.errors import SettingError
from rddals.local_workers import is_local


def context_of(sc: Any) -> SparkContext:
    """Return a SparkContext, or that of a SparkSession.

    Raise `SettingError` for a session of Spark Connect, and `TypeError` for anything else.
    """
    refuse_connect(sc)
    if isinstance(sc, SparkSession):
        return sc.sparkContext
    if not isinstance(sc, SparkContext):
        raise TypeError(f"sc should be a SparkContext, got type {type(sc)}")
    return sc


def refuse_connect(value: Any) -> None:
    """Raise `SettingError` if a value belongs to Spark Connect."""
    if type(value).__module__.startswith("pyspark.sql.connect"):
        raise SettingError(
            "rddals computes on RDDs, which Spark Connect does not have. Use a classic session: "
            "SparkSession.builder.master(...) instead of remote(...), with SPARK_REMOTE and "
            "SPARK_CONNECT_MODE_ENABLED unset and without spark.api.mode=connect."
        )


def is_stopped(sc: SparkContext) -> bool:
    """Return whether `sc` is stopped.

    PySpark keeps the Python object of a stopped context, but its JVM part is None.
    """
    return sc._jsc is None


def executors_of(sc: SparkContext) -> int:
    """Return how many executors store a copy of a broadcast.

    Spark lists the driver among the executors. It runs tasks in local mode alone, and is left out
    otherwise.
    """
    registered = sc._jsc.sc().getExecutorMemoryStatus().size()
    return max(1, registered - (0 if is_local(sc) else 1))


#: Most elements that `head` reads after the first.
DRAIN_LIMIT = 1 << 16


def head(rdd: RDD[Any]) -> list[Any]:
    """Return the first element in a list, or an empty list.

    ``RDD.take`` leaves the rest of a partition unread. That kills the Python worker, and the next
    task waits a second or two while a new one starts and imports. So this reads up to `DRAIN_LIMIT`
    more elements.
    """
    if rdd.getNumPartitions():
        first: list[Any] = rdd.context.runJob(rdd, _first_of, [0])
        if first:
            return first
    return rdd.take(1)


def _first_of(elements: Iterable[Any]) -> list[Any]:
    elements = iter(elements)
    first = list(islice(elements, 1))
    deque(islice(elements, DRAIN_LIMIT), maxlen=0)
    return first


#: Spark's local properties that name the step of a job, for programs and for people.
STEP, DESCRIPTION = "rddals.step", "spark.job.description"


@contextmanager
def job_label(sc: SparkContext, step: str) -> Iterator[None]:
    """Label the jobs that start inside the block, in Spark's pages and events.

    Spark keeps a local property until it is changed, so the previous values are restored.
    """
    previous = {name: sc.getLocalProperty(name) for name in (STEP, DESCRIPTION)}
    sc.setLocalProperty(STEP, step)
    if previous[DESCRIPTION] is None:
        sc.setLocalProperty(DESCRIPTION, f"rddals: {step}")
    try:
        yield
    finally:
        if not is_stopped(sc):
            for name, value in previous.items():
                sc.setLocalProperty(name, value)
