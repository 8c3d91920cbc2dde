"""Lifetimes of RDDs: storage levels, checkpoints, reference counts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from pyspark import RDD, SparkContext, StorageLevel

from rddals.local_workers import is_local
from rddals.rdds.hadoop import located
from rddals.rdds.shuffles import co_partitioned

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


def materialise(rdd: RDD[Any]) -> None:
    """Compute every partition of a persisted RDD.

    PySpark's ``count`` sends every record through a Python worker, which the JVM's does not.
    """
    rdd._jrdd.count()


def storage_level(sc: SparkContext) -> StorageLevel:
    """Return the level for persisted RDDs: memory, then disk; two copies on a cluster.

    PySpark's own levels serialise in memory. Python's records are bytes already, so that only
    compresses them, and every reader has to decompress them. This level stores them unchanged. The
    second copy survives the loss of an executor.
    """
    return StorageLevel(
        useDisk=True,
        useMemory=True,
        useOffHeap=False,
        deserialized=True,
        replication=1 if is_local(sc) else 2,
    )


def cut_lineage(*rdds: RDD[Any]) -> None:
    """Compute co-partitioned RDDs and cut their lineage; no job may have computed them before.

    Spark's scheduler and serializer recurse through all previous half-steps, and overflow their
    stack after a few dozen. A checkpoint ends the recursion: in the checkpoint directory if there
    is one, else in the executors' storage. Spark silently ignores a checkpoint of an RDD that a job
    has used already.
    """
    for rdd in rdds:
        if rdd.context.getCheckpointDir() is not None:
            rdd.persist(StorageLevel.MEMORY_AND_DISK)
            rdd.checkpoint()
        else:
            rdd.persist(storage_level(rdd.context))
            rdd.localCheckpoint()
    try:
        # Spark also checkpoints the RDDs from which a job's last RDD is computed.
        materialise(rdds[0] if len(rdds) == 1 else co_partitioned(rdds))
    except BaseException:
        for rdd in rdds:
            discard(rdd)
        raise


def discard(rdd: RDD[Any]) -> None:
    """Free the storage of a persisted or checkpointed RDD, and delete its checkpoint files.

    Spark leaves those files behind even after the RDD is collected.
    """
    file = rdd.getCheckpointFile() if rdd.context.getCheckpointDir() is not None else None
    # RDD.unpersist() does this and warns that a local checkpoint cannot be recomputed.
    rdd.context._jsc.sc().unpersistRDD(rdd.id(), False)
    rdd.is_cached = False
    if file is not None:
        files, path = located(rdd.context, file)
        files.delete(path, True)


def is_lost(rdd: RDD[Any]) -> bool:
    """Return whether somebody else has freed an RDD that Spark cannot recompute."""
    stored = rdd.context._jsc.getPersistentRDDs()
    return rdd.isLocallyCheckpointed() and not stored.containsKey(rdd.id())


@contextmanager
def undo_on_failure() -> Iterator[ExitStack]:
    """Yield a stack whose callbacks run if the block raises, and only then."""
    with ExitStack() as stack:
        yield stack
        stack.pop_all()


class Shared:
    """Owner of a persisted RDD with a reference count; frees it when the count drops to zero."""

    def __init__(self, rdd: RDD[Any]) -> None:
        self._rdd = rdd
        self._references = 0
        self._left_to_spark = False

    def retain(self) -> Self:
        """Add a reference."""
        self._references += 1
        return self

    def leave_to_spark(self) -> None:
        """Never free the RDD here, since other RDDs may be computed from it at any time.

        Spark frees a persisted RDD when neither it nor an RDD computed from it is referenced.
        """
        self._left_to_spark = True

    def release(self) -> None:
        """Remove a reference, and free the RDD if it was the last one."""
        self._references -= 1
        if self._references == 0 and not self._left_to_spark:
            discard(self._rdd)

    def discard(self) -> None:
        """Free the RDD unless somebody retains it."""
        self.retain().release()
