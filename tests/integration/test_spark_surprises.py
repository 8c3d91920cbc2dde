"""Facts about Spark that `rddals.rdds` relies on; a failure means that Spark has changed."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import uuid
from types import SimpleNamespace

import pytest
from pyspark import RDD, StorageLevel, accumulators

from rddals.rdds.context import head
from rddals.rdds.frames import arrow_batches
from rddals.rdds.lifetimes import cut_lineage, discard, materialise, storage_level
from rddals.rdds.shuffles import (
    BYPASS_THRESHOLD,
    Shuffle,
    block_index,
    co_partitioned,
    with_shuffle_serializer,
)
from rddals.rdds.task_reports import TaskReports
from rddals.rdds.worker_tuning import gc_paused, tune_worker

PAIRS = [(block, f"{block}{letter}") for block in range(3) for letter in "ab"]


def reverse_blocks(pairs):
    return ((2 - block, value) for block, value in pairs)


def by_partition(rdd):
    return [sorted(partition) for partition in rdd.glom().collect()]


def logged(rdd, log):
    """Return `rdd` with a file in `log` for every computed partition."""

    def computed(records):
        (log / uuid.uuid4().hex).touch()
        return records

    return rdd.mapPartitions(computed, preservesPartitioning=True)


def lineage(rdd):
    return rdd.toDebugString().decode()


def test_co_partitioned_needs_the_same_function_object(sc):
    def equal_but_another(block):
        return block

    pairs = sc.parallelize(PAIRS, 2)
    one = pairs.partitionBy(3, block_index)
    other = pairs.partitionBy(3, equal_but_another)
    assert sc.union([one, other]).getNumPartitions() == 6
    with pytest.raises(RuntimeError, match=r"\[3, 3\] partitions are not co-partitioned"):
        co_partitioned([one, other])


def test_one_task_reads_one_partition_of_each_rdd(sc, tmp_path):
    one, other = (Shuffle(sc.parallelize(PAIRS, n), 3).rdd for n in (2, 4))
    both = logged(co_partitioned([one, other]), tmp_path)
    assert by_partition(both) == [sorted(PAIRS[2 * b : 2 * b + 2] * 2) for b in range(3)]
    assert len(list(tmp_path.iterdir())) == 3


def test_cogroup_shuffles_again(sc, stages_of):
    shuffles = [Shuffle(sc.parallelize(PAIRS, 2), 3) for _ in range(2)]
    for shuffle in shuffles:
        shuffle.write()
    one, other = (shuffle.rdd for shuffle in shuffles)
    for name, rdd, written in (
        ("cogroup", one.cogroup(other), True),
        ("union", co_partitioned([one, other]), False),
    ):
        sc.setJobGroup(f"again by {name}", "")
        rdd.count()
        stages = [stage for job in stages_of(f"again by {name}") for stage in job]
        assert any(stage.records_written for stage in stages) is written


def test_partition_by_an_equal_partitioner_does_nothing(sc):
    placed = sc.parallelize(PAIRS, 2).partitionBy(3, block_index)
    swapped = placed.mapPartitions(reverse_blocks, preservesPartitioning=True)
    assert swapped.partitionBy(3, block_index) is swapped
    moved = by_partition(Shuffle(swapped, 3).rdd)
    assert [{block for block, _ in partition} for partition in moved] == [{0}, {1}, {2}]


def test_release_deletes_only_its_shuffle(sc, footprint):
    source = sc.parallelize(PAIRS, 2).groupByKey(2)
    source.count()
    existing = footprint.current() - footprint.baseline
    shuffle = Shuffle(source.mapValues(list), 3)
    shuffle.write()
    added = footprint.current() - footprint.baseline - existing
    assert {kind for kind, _ in existing} == {kind for kind, _ in added} == {"shuffle file"}
    footprint.baseline |= existing
    shuffle.release()
    shuffle.release()  # releasing again has no effect
    assert not footprint.remaining()
    assert existing <= footprint.current()
    assert shuffle.rdd.count() == 3  # its source still exists


def test_different_serializers_cost_a_python_pass(sc):
    shuffled = Shuffle(sc.parallelize(PAIRS, 2), 3).rdd
    mapped = shuffled.mapPartitions(iter, preservesPartitioning=True)
    assert mapped._jrdd_deserializer != shuffled._jrdd_deserializer
    converted = with_shuffle_serializer(mapped)
    assert converted._jrdd_deserializer == shuffled._jrdd_deserializer
    # Both unions have the pass of mapPartitions; different serializers add more.
    passes = [
        lineage(sc.union([rdd, shuffled])).count("PythonRDD") - lineage(rdd).count("PythonRDD")
        for rdd in (converted, mapped)
    ]
    passes = [count - lineage(shuffled).count("PythonRDD") for count in passes]
    assert passes[0] == 0
    assert passes[1] > 0
    assert by_partition(co_partitioned([converted, shuffled])) == [
        sorted(PAIRS[2 * b : 2 * b + 2] * 2) for b in range(3)
    ]


def test_write_runs_only_the_map_side(sc, tmp_path):
    map_side, reduce_side = tmp_path / "map", tmp_path / "reduce"
    map_side.mkdir()
    reduce_side.mkdir()
    shuffle = Shuffle(logged(sc.parallelize(PAIRS, 4), map_side), 3)
    read = logged(shuffle.rdd, reduce_side)
    shuffle.write()
    assert len(list(map_side.iterdir())) == 4
    assert not list(reduce_side.iterdir())
    shuffle.write()  # again does nothing
    read.count()
    assert len(list(map_side.iterdir())) == 4
    assert len(list(reduce_side.iterdir())) == 3


def test_materialise_computes_every_partition_once(sc, tmp_path):
    rdd = logged(sc.parallelize(range(10), 5), tmp_path).persist(storage_level(sc))
    materialise(rdd)
    materialise(rdd)
    assert sorted(rdd.collect()) == list(range(10))
    assert len(list(tmp_path.iterdir())) == 5
    assert "CachedPartitions: 5" in lineage(rdd)


TWICE = StorageLevel(True, True, False, True, 2)


@pytest.mark.parametrize(
    ("master", "level"),
    [
        ("local", StorageLevel.MEMORY_AND_DISK_DESER),
        ("local[2]", StorageLevel.MEMORY_AND_DISK_DESER),
        ("local-cluster[2, 1, 1024]", TWICE),
        ("spark://somewhere:7077", TWICE),
        ("yarn", TWICE),
        (None, TWICE),
    ],
)
def test_two_copies_if_an_executor_can_be_lost(master, level):
    assert storage_level(SimpleNamespace(master=master)) == level


def long_lineage(sc, log):
    rdd = Shuffle(sc.parallelize(PAIRS, 2), 3).rdd
    for _ in range(5):
        rdd = Shuffle(rdd, 3).rdd
    return logged(rdd, log)


def test_lineage_is_cut_without_a_checkpoint_directory(sc, tmp_path):
    rdd = long_lineage(sc, tmp_path)
    before = lineage(rdd)
    cut_lineage(rdd)
    assert rdd.isCheckpointed()
    assert before.count("ShuffledRDD") == 6
    assert "ShuffledRDD" not in lineage(rdd)
    assert sorted(rdd.collect()) == PAIRS
    assert len(list(tmp_path.iterdir())) == 3  # computed once for both storage and lineage
    discard(rdd)
    assert rdd._jrdd.rdd().id() not in sc._jsc.getPersistentRDDs()


def test_discard_deletes_checkpoints(sc, tmp_path, checkpoint_dir):
    log = tmp_path / "log"
    log.mkdir()
    rdd = long_lineage(sc, log)
    cut_lineage(rdd)
    assert "ShuffledRDD" not in lineage(rdd)
    assert sorted(rdd.collect()) == PAIRS
    assert len(list(log.iterdir())) == 3  # not again for the checkpoint
    rdd.unpersist(blocking=True)
    assert len(list(checkpoint_dir.glob("*/rdd-*"))) == 1
    discard(rdd)
    assert not list(checkpoint_dir.glob("*/rdd-*"))


def test_checkpoint_after_a_job_is_ignored(sc, tmp_path):
    rdd = long_lineage(sc, tmp_path)
    materialise(rdd)
    cut_lineage(rdd)
    assert not rdd.isCheckpointed()
    assert "ShuffledRDD" in lineage(rdd)


def test_failed_cut_releases_everything(sc, footprint):
    def fail(records):
        raise ValueError("no")

    with pytest.raises(Exception, match="no"):
        cut_lineage(sc.parallelize(PAIRS, 2).mapPartitions(fail))
    assert not footprint.remaining("persisted RDD")


CHECK_NODELAY = """
import socket
from rddals.rdds.worker_tuning import tune_worker

with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(server.getsockname()) as connection:
        before = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        tune_worker()
        print(before, connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)
        connection.sendall(b"still open")
        print(server.accept()[0].recv(64))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds sockets by /proc")
def test_worker_connection_sets_tcp_nodelay():
    process = subprocess.run(
        [sys.executable, "-c", CHECK_NODELAY], capture_output=True, text=True, check=True
    )
    assert process.stdout.split("\n")[:2] == ["0 True", "b'still open'"]


def test_worker_imports_are_not_garbage_collected(sc):
    def frozen(records):
        import gc

        records = list(records)
        tune_worker()
        first = gc.get_freeze_count()
        tune_worker()
        second = gc.get_freeze_count()
        import colorsys

        assert colorsys
        tune_worker()
        return [(records, first, second, gc.get_freeze_count())]

    ((records, *counts),) = sc.parallelize(range(3), 1).mapPartitions(frozen).collect()
    first, second, third = counts
    assert records == [0, 1, 2]
    assert first > 10_000
    assert second == first  # frozen once: garbage of later tasks is collected
    assert third > second  # but new imports are frozen


def ends(pid, seconds):
    """Return whether a process ends within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_head_keeps_the_worker_alive(sc):
    rdd = sc.parallelize(list(range(500)), 1).map(lambda number: (number, os.getpid()))
    ((first, worker),) = head(rdd)
    assert first == 0
    assert not ends(worker, 1)
    # The surprise: the worker ends if take() leaves elements unread.
    ((_, worker),) = rdd.take(1)
    assert ends(worker, 30)


def test_head_skips_empty_partitions(sc):
    assert head(sc.parallelize([], 3)) == []
    assert head(sc.parallelize([7], 3).filter(bool)) == [7]
    assert head(sc.emptyRDD()) == []


def reporting_task(task_reports, topic):
    def task(partition, records):
        task_reports.add(topic, partition, sum(records))
        return [partition]

    return task


def test_rerun_task_reports_once(sc):
    task_reports = TaskReports(sc)
    plain, task = sc.accumulator(0), reporting_task(task_reports, "sum")

    def counted(partition, records):
        plain.add(1)
        return task(partition, records)

    rdd = sc.parallelize(range(6), 3).mapPartitionsWithIndex(counted)
    assert (rdd.count(), rdd.count()) == (3, 3)
    assert plain.value == 6
    assert task_reports.take("other") == []
    assert task_reports.take("sum") == [0 + 1, 2 + 3, 4 + 5]
    assert task_reports.take("sum") == []
    task_reports.close()
    accumulators._accumulatorRegistry.pop(plain.aid)


def test_reports_after_close_are_dropped(sc):
    closed, opened = TaskReports(sc), TaskReports(sc)
    late = sc.parallelize(range(6), 3).mapPartitionsWithIndex(reporting_task(closed, "sum"))
    closed.close()
    late.count()
    assert closed.take("sum") == [1, 5, 9]  # Spark still delivers them
    late.count()
    sc.parallelize(range(2), 2).mapPartitionsWithIndex(reporting_task(opened, "sum")).count()
    assert opened.take("sum") == [0, 1]
    opened.close()
    assert closed.take("sum") == []


def test_task_reports_share_one_accumulator(sc):
    TaskReports(sc).close()
    before = dict(accumulators._accumulatorRegistry)
    all_reports = [TaskReports(sc) for _ in range(5)]
    rdd: RDD = sc.parallelize(range(6), 3)
    for task_reports in all_reports:
        rdd.mapPartitionsWithIndex(reporting_task(task_reports, "sum")).count()
    assert [task_reports.take("sum") for task_reports in all_reports] == [[1, 5, 9]] * 5
    for task_reports in all_reports:
        task_reports.close()
    assert accumulators._accumulatorRegistry == before


def test_arrow_batches_hold_the_rows_of_a_frame(spark):
    ipc = pytest.importorskip("pyarrow").ipc
    from pyspark.sql.pandas.types import to_arrow_schema

    rows = [(n, n / 2 if n % 3 else None) for n in range(25_000)]
    frame = spark.createDataFrame(rows, "id int, half double").repartitionByRange(3, "id")
    schema = to_arrow_schema(frame.schema)
    partitions = arrow_batches(frame).glom().collect()
    assert len(partitions) == 3
    read = [ipc.read_record_batch(b, schema).to_pylist() for part in partitions for b in part]
    assert sorted((r["id"], r["half"]) for batch in read for r in batch) == rows


@pytest.mark.parametrize(("partitions", "writer"), [(4, "BypassMergeSort"), (5, "Serialized")])
def test_shuffle_task_writes_one_file(sc, partitions, writer):
    """By default Spark opens one file per partition, for up to 200 partitions."""
    conf = sc._jsc.sc().conf()
    assert not conf.contains(BYPASS_THRESHOLD)
    pairs = sc.parallelize([(n % partitions, n) for n in range(20)], 2)
    other = pairs.partitionBy(partitions, block_index)
    other._jrdd.rdd().dependencies()  # registers another shuffle first
    shuffle = Shuffle(pairs, partitions)
    try:
        handle = shuffle.dependency.shuffleHandle().getClass().getSimpleName()
        assert handle == f"{writer}ShuffleHandle"
        assert sorted(shuffle.rdd.values().collect()) == list(range(20))
    finally:
        shuffle.release()
    assert not conf.contains(BYPASS_THRESHOLD)
    conf.set(BYPASS_THRESHOLD, "7")
    try:
        Shuffle(pairs, partitions).release()
        assert conf.get(BYPASS_THRESHOLD) == "7"
    finally:
        conf.remove(BYPASS_THRESHOLD)


def test_gc_paused():
    assert gc.isenabled()
    with gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_release_waits_for_the_writing_job(sc):
    """Otherwise PySpark 3.5's context fails."""

    def slowly(records):
        time.sleep(1)
        return ((number % 2, number) for number in records)

    shuffle = Shuffle(sc.parallelize(range(4), 2).mapPartitions(slowly), 2)
    writer = threading.Thread(target=shuffle.write)
    writer.start()
    while not sc.statusTracker().getActiveJobsIds():
        time.sleep(0.01)
    shuffle.release()
    assert not sc.statusTracker().getActiveJobsIds()
    writer.join()
    assert sc.parallelize([1]).count() == 1
