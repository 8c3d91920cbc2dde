"""Facts about a SparkContext, and small jobs in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from pyspark import RDD, SparkContext

__all__ = ["STEP", "executors_of", "head", "is_local", "is_stopped", "job_label"]


def is_stopped(sc: SparkContext) -> bool:
    """Whether `sc` runs no more jobs."""
    return sc._jsc is None


def is_local(sc: SparkContext) -> bool:
    """Whether the workers share the driver's machine and Python, as local-cluster's may not."""
    master = sc.master or ""
    return master.startswith("local") and "cluster" not in master


def executors_of(sc: SparkContext) -> int:
    """Executors that hold a copy of what is broadcast; the driver is one only in local mode."""
    registered = sc._jsc.sc().getExecutorMemoryStatus().size()
    return max(1, registered - (0 if (sc.master or "").startswith("local") else 1))


#: Elements that are read to the end rather than left to kill a worker.
NEAR_THE_END = 1 << 16


def head(rdd: RDD[Any]) -> list[Any]:
    """The first element, in a list; an empty one if there is none.

    What ``RDD.take`` leaves unread kills the Python worker that was reading, and a new one starts
    and imports for a second or two. So the rest of a small partition is read as well.
    """
    if rdd.getNumPartitions():
        found: list[Any] = rdd.context.runJob(rdd, _first_of, [0])
        if found:
            return found
    return rdd.take(1)


def _first_of(elements: Iterable[Any]) -> list[Any]:
    elements = iter(elements)
    first = list(islice(elements, 1))
    deque(islice(elements, NEAR_THE_END), maxlen=0)
    return first


#: Local properties of Spark: what a job is for, to be read by programs and by people.
STEP, DESCRIPTION = "rddals.step", "spark.job.description"


@contextmanager
def job_label(sc: SparkContext, step: str) -> Iterator[None]:
    """Say what the jobs that are started meanwhile are for, in Spark's pages and events."""
    before = {name: sc.getLocalProperty(name) for name in (STEP, DESCRIPTION)}
    sc.setLocalProperty(STEP, step)
    if before[DESCRIPTION] is None:
        sc.setLocalProperty(DESCRIPTION, f"rddals: {step}")
    try:
        yield
    finally:
        if not is_stopped(sc):
            for name, value in before.items():
                sc.setLocalProperty(name, value)
