"""Shuffles to blocks, and RDDs that share one placement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from pyspark import RDD, SparkContext

from rddals.rdds.worker_tuning import spark_task

__all__ = ["Shuffle", "block_index", "co_partitioned", "identity", "with_shuffle_serializer"]


def block_index(block: int) -> int:
    """The one partition function of every RDD keyed by block.

    Spark takes two RDDs for co-partitioned only if their partition functions are the same
    *object*, so this is a module-level function that nobody wraps.
    """
    return block


class Shuffle:
    """An RDD of ``(block, value)`` pairs, shuffled to partition ``block``."""

    def __init__(self, pairs: RDD[Any], partitions: int) -> None:
        # If `pairs` kept the partitioner of what they were made from, Spark would take them for
        # shuffled already and leave them where they are. mapPartitions forgets it.
        self.rdd: RDD[Any] = pairs.mapPartitions(identity).partitionBy(partitions, block_index)
        # valueOfPair(ShuffledRDD): the shuffle is one narrow step up.
        values = self.rdd._jrdd.rdd()
        shuffled = values.dependencies().apply(0).rdd()
        with _one_file_per_task(pairs.context):
            self._dependency = shuffled.dependencies().apply(0)

    def write(self) -> None:
        """Run the map side, as a job of its own that reads nothing back."""
        if self._dependency.rdd().getNumPartitions():  # Spark refuses to write nothing
            self.rdd.context._jsc.sc().submitMapStage(self._dependency).get()

    def release(self) -> None:
        """Delete the shuffle's files now.

        Left alone they stay until the driver's JVM happens to collect the RDD. Only this
        shuffle goes: ``RDD.cleanShuffleDependencies`` would take those of the caller's own RDDs
        along.

        A job that was interrupted, as by the end of a streaming query, may go on for a moment, and
        the scheduler of PySpark 3.5 dies of a task that writes to a shuffle it no longer knows. So
        this waits for the job; one that does not end leaves the files to Spark.
        """
        context, number = self.rdd.context._jsc.sc(), self._dependency.shuffleId()
        cleaner, scheduler = context.cleaner(), context.dagScheduler()
        if scheduler is None or not cleaner.isDefined():
            return
        patient_until = monotonic() + PATIENCE
        while scheduler.shuffleIdToMapStage().contains(number):
            if monotonic() > patient_until:
                return
            sleep(0.01)
        cleaner.get().doCleanupShuffle(number, False)


#: Seconds that the end of a job is waited for before its shuffle is released.
PATIENCE = 30.0


#: How Spark writes the map side of a shuffle, and up to how many partitions of ours it may write
#: a file for each.
WRITER, FEW_PARTITIONS = "spark.shuffle.sort.bypassMergeThreshold", "4"


@contextmanager
def _one_file_per_task(sc: SparkContext) -> Iterator[None]:
    """Have shuffles that are registered meanwhile written to one file by each task.

    Up to 200 partitions Spark opens a file and a serializer for each of them, in every task, and
    joins the files. For as many messages as partitions that is most of a task's time. Which way is
    taken is decided on the driver, when the shuffle is registered.
    """
    conf = sc._jsc.sc().conf()
    before = conf.get(WRITER, "")
    conf.set(WRITER, FEW_PARTITIONS)
    try:
        yield
    finally:
        if before:
            conf.set(WRITER, before)
        else:
            conf.remove(WRITER)


def with_shuffle_serializer(rdd: RDD[Any]) -> RDD[Any]:
    """`rdd`, serialised as the output of a shuffle is.

    ``SparkContext.union`` adds a Python pass over every record of RDDs whose serializers differ,
    and those of ``mapPartitions`` and ``partitionBy`` do.
    """
    from pyspark.serializers import BatchedSerializer

    return rdd._reserialize(BatchedSerializer(rdd.ctx._unbatched_serializer))


def co_partitioned(rdds: Iterable[RDD[Any]]) -> RDD[Any]:
    """Partition p of the result holds partition p of each RDD, in one Python task.

    Where all share one partitioner the union is narrow and partition-aware: no shuffle, no
    cogroup (which would reshuffle by Spark's default hash whatever the partitioners).
    """
    rdds = list(rdds)
    if len(rdds) == 1:
        return rdds[0]
    union = rdds[0].context.union(rdds)
    if union.getNumPartitions() != rdds[0].getNumPartitions():
        raise RuntimeError(
            f"RDDs of {[r.getNumPartitions() for r in rdds]} partitions are not co-partitioned"
        )
    return union


@spark_task
def identity(records: Iterable[Any]) -> Iterator[Any]:
    """The records of a partition, unchanged."""
    return iter(records)
