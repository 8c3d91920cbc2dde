"""How long RDDs live: storage levels, checkpoints, reference counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark import RDD, SparkContext, StorageLevel

from rddals.rdds.context import is_local
from rddals.rdds.hadoop import located
from rddals.rdds.shuffles import co_partitioned

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["Shared", "cut_lineage", "discard", "materialise", "storage_level"]


def materialise(rdd: RDD[Any]) -> None:
    """Compute every partition of a persisted RDD without passing it through Python."""
    rdd._jrdd.count()


def storage_level(sc: SparkContext) -> StorageLevel:
    """Memory first, then disk; twice where an executor can be lost.

    In memory they stay as they are. Python's records are bytes already: serialised once more, as
    PySpark's own levels would have them, they are only compressed, and every reader undoes that.
    """
    return StorageLevel(
        useDisk=True,
        useMemory=True,
        useOffHeap=False,
        deserialized=True,
        replication=1 if is_local(sc) else 2,
    )


def cut_lineage(*rdds: RDD[Any]) -> None:
    """Compute co-partitioned RDDs, which no job has computed before, and forget how.

    Without this, Spark's scheduler and serializer walk back through every half-step so far and
    overflow their stack after a few dozen. With a checkpoint directory the data goes there;
    without, it is kept by the executors. (Spark silently ignores a checkpoint of an RDD that a
    job has used already.)
    """
    for rdd in rdds:
        if rdd.context.getCheckpointDir() is not None:
            rdd.persist(StorageLevel.MEMORY_AND_DISK)
            rdd.checkpoint()
        else:
            rdd.persist(storage_level(rdd.context))
            rdd.localCheckpoint()
    try:
        # Spark checkpoints what a job's last RDD is made of as well.
        materialise(rdds[0] if len(rdds) == 1 else co_partitioned(rdds))
    except BaseException:
        for rdd in rdds:
            discard(rdd)
        raise


def discard(rdd: RDD[Any]) -> None:
    """Free what a persisted or checkpointed RDD holds, its checkpoint's files included.

    Spark leaves those behind even when the RDD is long gone.
    """
    file = rdd.getCheckpointFile() if rdd.context.getCheckpointDir() is not None else None
    rdd.unpersist()
    if file is not None:
        files, path = located(rdd.context, file)
        files.delete(path, True)


class Shared:
    """Something around a persisted RDD that several may need; freed when nobody is left."""

    def __init__(self, rdd: RDD[Any]) -> None:
        self._rdd = rdd
        self._references = 0
        self._left_to_spark = False

    def retain(self) -> Self:
        """Count one more that needs it."""
        self._references += 1
        return self

    def leave_to_spark(self) -> None:
        """Leave it to Spark to free the RDD: others may be computed from it at any time.

        Spark does so when neither it nor any of those is referred to any more.
        """
        self._left_to_spark = True

    def release(self) -> None:
        """Count one less, and free the RDD when nobody is left."""
        self._references -= 1
        if self._references == 0 and not self._left_to_spark:
            discard(self._rdd)
