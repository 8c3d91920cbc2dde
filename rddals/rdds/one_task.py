"""Running all partitions in one task, and the cores that it may use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from py4j.protocol import Py4JError
from pyspark import RDD, SparkContext

from rddals.blocks.factors import FactorBlock
from rddals.local_workers import is_local
from rddals.rdds.shuffles import with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task


class TaskCores(NamedTuple):
    """Cores that one task may use.

    Attributes
    ----------
    threads : int
    profile : ResourceProfile or None
        Resource request of the stage, if it needs more cores than ``spark.task.cpus``.
    """

    threads: int
    profile: Any = None

    def of(self, rdd: RDD[Any]) -> RDD[Any]:
        """Return `rdd` with tasks of this many cores."""
        return rdd if self.profile is None else rdd.withResources(self.profile)


def cores_of_a_task(sc: SparkContext) -> TaskCores:
    """Return the largest number of cores that one task can have.

    Spark gives a task ``spark.task.cpus`` cores, one by default. A resource profile requests all
    cores of an executor, but Spark supports that on some cluster managers only. On others the task
    has ``spark.task.cpus``. In local mode it has all cores of the master.
    """
    if is_local(sc):
        return TaskCores(local_cores(sc.master or ""))
    cpus = int(sc.getConf().get("spark.task.cpus", "1"))
    executors = sc._jsc.sc().statusStore().executorList(True)
    cores = [executors.apply(i) for i in range(executors.size())]
    available = min((e.totalCores() for e in cores if e.id() != "driver"), default=cpus)
    if available <= cpus:
        return TaskCores(cpus)
    from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

    profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(available)).build
    try:  # Spark raises if the cluster manager does not support it
        sc.emptyRDD().withResources(profile)
    except (Py4JError, AttributeError):
        return TaskCores(cpus)
    return TaskCores(available, profile)


def local_cores(master: str) -> int:
    """Return the threads of the master ``local``, ``local[4]``, ``local[*]`` or ``local[4, 2]``."""
    match = re.match(r"local\[\s*(\*|\d+)", master)
    if match is None:
        return 1
    return (os.cpu_count() or 1) if match[1] == "*" else int(match[1])


def in_one_task(rdds: Sequence[RDD[Any]]) -> RDD[Any]:
    """Return an RDD whose single partition contains all partitions of `rdds`, in any order."""
    # PySpark sends RDDs whose serializers differ through Python once more.
    return rdds[0].context.union([with_shuffle_serializer(rdd) for rdd in rdds]).coalesce(1)


def numbered(rdds: Iterable[RDD[FactorBlock]]) -> list[RDD[Any]]:
    """Return RDDs of ``(number of the RDD, block, rows)``, so that a task can distinguish them."""
    return [
        rdd.mapPartitionsWithIndex(partial(_numbered, number)) for number, rdd in enumerate(rdds)
    ]


@spark_task
def _numbered(
    number: int, block: int, rows: Iterable[FactorBlock]
) -> Iterator[tuple[int, int, FactorBlock]]:
    return ((number, block, of_block) for of_block in rows)
