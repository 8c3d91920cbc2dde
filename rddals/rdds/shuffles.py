"""Shuffles to blocks, and co-partitioned RDDs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from pyspark import RDD, SparkContext

from rddals.rdds.worker_tuning import spark_task


def block_index(block: int) -> int:
    """Return the partition of a block: the partition function of every RDD keyed by block.

    Spark considers two RDDs co-partitioned only if their partition functions are the same *object*.
    So use this module-level function itself, never a wrapper of it.
    """
    return block


class Shuffle:
    """An RDD of ``(block, value)`` pairs, shuffled to partition ``block``.

    Attributes
    ----------
    rdd : RDD
        The shuffled pairs.
    dependency : ShuffleDependency
        Spark's object for the shuffle, in the driver's JVM.
    """

    def __init__(self, pairs: RDD[Any], partitions: int) -> None:
        # If `pairs` still had the partitioner of their parent, Spark would consider them shuffled
        # already and not move them. mapPartitions drops it.
        self.rdd: RDD[Any] = pairs.mapPartitions(identity).partitionBy(partitions, block_index)
        # valueOfPair(ShuffledRDD): the shuffle is the parent's dependency.
        values = self.rdd._jrdd.rdd()
        shuffled = values.dependencies().apply(0).rdd()
        with _one_file_per_task(pairs.context):
            self.dependency = shuffled.dependencies().apply(0)

    def write(self) -> None:
        """Run the map side as a job of its own, which reads nothing back."""
        if self.dependency.rdd().getNumPartitions():  # Spark rejects an empty map side
            self.rdd.context._jsc.sc().submitMapStage(self.dependency).get()

    def release(self) -> None:
        """Delete the shuffle's files now.

        Spark deletes them only when the driver's JVM collects the RDD.
        ``RDD.cleanShuffleDependencies`` deletes the shuffles of the caller's own RDDs too, so this
        deletes one shuffle by its number.

        A job that was interrupted, as by the end of a streaming query, may run on for a moment, and
        the scheduler of PySpark 3.5 dies if a task writes to a deleted shuffle. So this waits for
        the job up to `RELEASE_TIMEOUT`, and after that leaves the files to Spark.
        """
        context, number = self.rdd.context._jsc.sc(), self.dependency.shuffleId()
        cleaner, scheduler = context.cleaner(), context.dagScheduler()
        if scheduler is None or not cleaner.isDefined():
            return
        deadline = monotonic() + RELEASE_TIMEOUT
        while scheduler.shuffleIdToMapStage().contains(number):
            if monotonic() > deadline:
                return
            sleep(0.01)
        cleaner.get().doCleanupShuffle(number, False)


#: Longest wait in seconds for the job that writes a shuffle, before the shuffle is released.
RELEASE_TIMEOUT = 30.0


#: Spark's setting for the most partitions with a file each on the map side, and rddals' value.
BYPASS_THRESHOLD, BYPASS_PARTITIONS = "spark.shuffle.sort.bypassMergeThreshold", "4"


@contextmanager
def _one_file_per_task(sc: SparkContext) -> Iterator[None]:
    """Make each task write one file for the shuffles that are registered inside the block.

    Up to 200 partitions, each task of Spark opens a file and a serializer for every partition, and
    joins the files at the end. With one message per partition that is most of the task's time. The
    driver chooses the way when it registers the shuffle, so the setting is changed only then.
    """
    conf = sc._jsc.sc().conf()
    previous = conf.get(BYPASS_THRESHOLD, "")
    conf.set(BYPASS_THRESHOLD, BYPASS_PARTITIONS)
    try:
        yield
    finally:
        if previous:
            conf.set(BYPASS_THRESHOLD, previous)
        else:
            conf.remove(BYPASS_THRESHOLD)


def with_shuffle_serializer(rdd: RDD[Any]) -> RDD[Any]:
    """Return `rdd` with the serializer of a shuffle's output.

    The serializers of ``mapPartitions`` and ``partitionBy`` differ, and ``SparkContext.union``
    sends every record of RDDs with different serializers through Python once more.
    """
    from pyspark.serializers import BatchedSerializer

    return rdd._reserialize(BatchedSerializer(rdd.ctx._unbatched_serializer))


def map_blocks(rdd: RDD[Any], function: Callable[[Iterable[Any]], Iterable[Any]]) -> RDD[Any]:
    """Apply `function` to the partition of each block.

    The result keeps the partitioner, and has the serializer of a shuffle's output, so that it can
    be co-partitioned with shuffles.
    """
    return with_shuffle_serializer(rdd.mapPartitions(function, preservesPartitioning=True))


def co_partitioned(rdds: Iterable[RDD[Any]]) -> RDD[Any]:
    """Return an RDD whose partition p contains partition p of each RDD, in one Python task.

    ``cogroup`` shuffles again, by Spark's default hash, however the RDDs are partitioned. A union
    of RDDs with one partitioner is narrow and does not shuffle, so this uses it and checks the
    result.
    """
    rdds = list(rdds)
    if len(rdds) == 1:
        return rdds[0]
    union = rdds[0].context.union(rdds)
    if union.getNumPartitions() != rdds[0].getNumPartitions():
        raise RuntimeError(
            f"RDDs of {[r.getNumPartitions() for r in rdds]} partitions are not co-partitioned. "
            "Give them the same partition function and number of partitions."
        )
    return union


@spark_task
def identity(records: Iterable[Any]) -> Iterator[Any]:
    """Return the records of a partition unchanged."""
    return iter(records)
