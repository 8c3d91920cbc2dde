"""All partitions in one task, and how many cores it may use."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from py4j.protocol import Py4JError
from pyspark import RDD, SparkContext

from rddals.blocks.factors import FactorBlock
from rddals.rdds.context import is_local
from rddals.rdds.shuffles import with_shuffle_serializer
from rddals.rdds.worker_tuning import spark_task

__all__ = ["TaskCores", "cores_of_a_task", "in_one_task", "local_cores", "numbered"]


class TaskCores(NamedTuple):
    """How many cores one task may use.

    Attributes
    ----------
    threads : int
    profile : ResourceProfile or None
        What a stage asks Spark for, to get more of them than ``spark.task.cpus``.
    """

    threads: int
    profile: Any = None

    def of(self, rdd: RDD[Any]) -> RDD[Any]:
        """`rdd`, with tasks that have so many cores."""
        return rdd if self.profile is None else rdd.withResources(self.profile)


def cores_of_a_task(sc: SparkContext) -> TaskCores:
    """The most cores that one task can have.

    A local master's cores; on a cluster all of an executor's, where Spark schedules stages by
    their resources, and ``spark.task.cpus`` elsewhere.
    """
    if is_local(sc):
        return TaskCores(local_cores(sc.master or ""))
    cpus = int(sc.getConf().get("spark.task.cpus", "1"))
    executors = sc._jsc.sc().statusStore().executorList(True)
    cores = [executors.apply(i) for i in range(executors.size())]
    most = min((e.totalCores() for e in cores if e.id() != "driver"), default=cpus)
    if most <= cpus:
        return TaskCores(cpus)
    from pyspark.resource import ResourceProfileBuilder, TaskResourceRequests

    profile = ResourceProfileBuilder().require(TaskResourceRequests().cpus(most)).build
    try:  # Spark says whether this cluster manager can do so when an RDD asks for it
        sc.emptyRDD().withResources(profile)
    except (Py4JError, AttributeError):
        return TaskCores(cpus)
    return TaskCores(most, profile)


def local_cores(master: str) -> int:
    """Threads of a local master: of ``local``, ``local[4]``, ``local[*]`` or ``local[4, 2]``."""
    found = re.match(r"local\[\s*(\*|\d+)", master)
    if found is None:
        return 1
    return (os.cpu_count() or 1) if found[1] == "*" else int(found[1])


def in_one_task(rdds: Sequence[RDD[Any]]) -> RDD[Any]:
    """One partition that holds those of all of them, in any order."""
    # RDDs of different serializers would be passed through Python once more.
    return rdds[0].context.union([with_shuffle_serializer(rdd) for rdd in rdds]).coalesce(1)


def numbered(rdds: Iterable[RDD[FactorBlock]]) -> list[RDD[Any]]:
    """RDDs of ``(number of the RDD, block, rows)``, so that a task can tell them apart."""
    return [
        rdd.mapPartitionsWithIndex(partial(_numbered, number)) for number, rdd in enumerate(rdds)
    ]


@spark_task
def _numbered(
    number: int, block: int, rows: Iterable[FactorBlock]
) -> Iterator[tuple[int, int, FactorBlock]]:
    return ((number, block, of_block) for of_block in rows)
