"""Spark's surprises, each with its reason, in one place.

What is here reaches below PySpark's public API or works around something that its documentation
does not mention. `tests/integration/test_spark_surprises.py` pins every one of them.
"""

from __future__ import annotations

import gc
import os
import socket
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import count, islice
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from pyspark import RDD, SparkContext, StorageLevel
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import DataFrame

from rddals.rdds.hadoop import located

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = [
    "STEP",
    "Shared",
    "Shuffle",
    "TaskReports",
    "arrow_batches",
    "block_index",
    "co_partitioned",
    "cut_lineage",
    "discard",
    "executors_of",
    "gc_paused",
    "head",
    "identity",
    "is_local",
    "is_stopped",
    "job_label",
    "materialise",
    "query_checkpoint",
    "spark_task",
    "storage_level",
    "tune_worker",
    "with_shuffle_serializer",
]


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


def arrow_batches(frame: DataFrame) -> RDD[bytes]:
    """A DataFrame as serialised Arrow record batches, in its own partitions.

    ``DataFrame.mapInArrow``, the public way, takes about four times as long: its batches go to a
    Python worker and back, and as pickled rows to a worker again.
    """
    from pyspark.serializers import NoOpSerializer

    batches = frame._jdf.toArrowBatchRdd().toJavaRDD()
    return RDD(batches, frame.sparkSession._sc, NoOpSerializer())


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


def query_checkpoint(frame: DataFrame) -> str | None:
    """Where the query keeps its checkpoint whose ``foreachBatch`` this is; None outside of one.

    The frame's session is a copy of the one that the query was started in, and knows of no query;
    what they share does.
    """
    query = frame.sparkSession.sparkContext.getLocalProperty("sql.streaming.queryId")
    if query is None:
        return None
    session: Any = frame.sparkSession
    uuid = session._jvm.java.util.UUID.fromString(query)
    running = session._jsparkSession.sharedState().activeStreamingQueries().get(uuid)
    return None if running is None else str(running.resolvedCheckpointRoot())


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


#: How many modules were imported when this worker's objects were frozen.
_frozen_modules = 0
#: Whether this worker may talk to the JVM by TCP; acknowledgements have to be asked for every time.
_over_tcp = True


def tune_worker() -> None:
    """In a task: spare this Python worker what PySpark would have it do or wait for.

    After every task it collects garbage, which walks all that modules left in memory when they
    were imported: about 10 ms for NumPy, SciPy and PySpark. Frozen, that is left out from then on.
    What a task imports is frozen by the next.

    Its TCP connection to the JVM has Nagle's algorithm and delayed acknowledgements on, which
    cost a small task about 40 ms of waiting on either side. (With Unix domain sockets, PySpark
    4.1's ``spark.python.unix.domain.socket.enabled``, there is nothing to do.)
    """
    global _frozen_modules, _over_tcp
    if len(sys.modules) != _frozen_modules:
        gc.freeze()
        _frozen_modules = len(sys.modules)
    if _over_tcp:
        _over_tcp = _without_delays()


def _without_delays() -> bool:
    """Make this process's TCP connections send and acknowledge at once; False if it has none."""
    found = False
    if not os.path.isdir("/proc/self/fd") or not hasattr(socket, "TCP_QUICKACK"):
        return found
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                    found = True
        except OSError:  # closed meanwhile, or no TCP socket after all
            continue
    return found


@contextmanager
def gc_paused() -> Iterator[None]:
    """In a task: collect no garbage meanwhile, for reading many small records.

    Python's collector looks for cycles among all that is alive whenever some hundred more objects
    are than were. While tens of thousands of rows are unpickled, and all are kept, that is five
    times the work of unpickling them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


P = ParamSpec("P")
R = TypeVar("R")


def spark_task(function: Callable[P, R]) -> Callable[P, R]:
    """A function that runs over a partition, and spares its worker first."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        tune_worker()
        return function(*args, **kwargs)

    return run


@spark_task
def identity(records: Iterable[Any]) -> Iterator[Any]:
    """The records of a partition, unchanged."""
    return iter(records)


class _Merge(AccumulatorParam[dict[Any, Any]]):
    def zero(self, value: dict[Any, Any]) -> dict[Any, Any]:
        return {}

    def addInPlace(self, value1: dict[Any, Any], value2: dict[Any, Any]) -> dict[Any, Any]:
        value1.update(value2)
        return value1


_accumulators: WeakKeyDictionary[SparkContext, Any] = WeakKeyDictionary()
_numbers = count()
_open: set[int] = set()


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


class TaskReports:
    """What tasks tell the driver beside their results.

    Reports are filed under a key. A task that is run again files the same report under the same
    key, so nothing counts twice, as in a plain accumulator it would. A block that is lost and
    recomputed long after reports to a book that is closed: such reports are dropped.

    All books of a context share one accumulator, which stays. PySpark never forgets an
    accumulator by itself, and if it is made to, PySpark 3.5 stops receiving updates of any.
    """

    def __init__(self, sc: SparkContext) -> None:
        if sc not in _accumulators:
            _accumulators[sc] = sc.accumulator({}, _Merge())
        self._accumulator = _accumulators[sc]
        self._number = next(_numbers)
        _open.add(self._number)

    def add(self, topic: Any, block: int, report: Any) -> None:
        """In a task: file a block's report on a topic."""
        self._accumulator.add({(self._number, topic, block): report})

    def take(self, topic: Any) -> list[Any]:
        """On the driver: remove and return the reports on a topic, in the order of the blocks."""
        reports = self._accumulator.value
        mine = (self._number, topic)
        return [reports.pop(key) for key in sorted(k for k in reports if k[:2] == mine)]

    def close(self) -> None:
        """Drop what is filed here, now or later."""
        _open.discard(self._number)
        reports = self._accumulator.value
        for key in [key for key in reports if key[0] not in _open]:
            del reports[key]
