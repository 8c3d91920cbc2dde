"""Resources for training, of a SparkContext or of this machine."""

from __future__ import annotations

import os
from pathlib import Path

from pyspark import SparkContext

from rddals.exchange.choice import Resources
from rddals.kernels.calibration import seconds_per_flop
from rddals.local_workers import is_local
from rddals.rdds.one_task import cores_of_a_task

MIB = 1 << 20
#: Spark's default memory overhead of an executor: fraction of its memory, and minimum in MiB.
OVERHEAD, MIN_OVERHEAD = 0.1, 384
DEFAULT_HEAP = 1024 * MIB


def resources_of(sc: SparkContext, rank: int) -> Resources:
    """Return the resources of a context's executors.

    With a local master, a task can use the memory of the machine minus the JVM's heap. On a cluster
    it can use ``spark.executor.pyspark.memory`` or, if that is not set, the executor's memory
    overhead.
    """
    return Resources(
        cores=max(1, int(sc.defaultParallelism)),
        threads=cores_of_a_task(sc).threads,
        task_bytes=_memory_beside_the_heap(sc) if is_local(sc) else _worker_memory(sc),
        seconds_per_flop=seconds_per_flop(rank),
    )


def resources_here(cores: int, rank: int) -> Resources:
    """Return the resources of this machine, minus a JVM with Spark's default heap."""
    memory = max(0, _machine_memory() - DEFAULT_HEAP)
    return Resources(cores, cores, memory, seconds_per_flop(rank))


def _memory_beside_the_heap(sc: SparkContext) -> int:
    jvm = sc._jvm
    assert jvm is not None
    return max(0, _machine_memory() - int(jvm.java.lang.Runtime.getRuntime().maxMemory()))


def _worker_memory(sc: SparkContext) -> int:
    conf = sc._jsc.sc().conf()
    memory = int(conf.getSizeAsMb("spark.executor.memory", "1g"))
    overhead = max(MIN_OVERHEAD, int(OVERHEAD * memory))
    for key in ("spark.executor.pyspark.memory", "spark.executor.memoryOverhead"):
        if conf.contains(key):
            return int(conf.getSizeAsMb(key)) * MIB
    return overhead * MIB


def _machine_memory() -> int:
    """Return the memory of this machine, or the limit of this process's control group."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical
