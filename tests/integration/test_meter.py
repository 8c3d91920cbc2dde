"""What Spark says it moved: live, and from the logs of programs that ran by themselves."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import pairwise

import pytest

import small_matrix as small
from rddals import ALS
from rddals.errors import EventLogError, MeterError
from rddals.measure import ShuffleMeter, read_event_log


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files that no other test has."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def shuffled(sc, size, maps, reduces):
    return sc.parallelize(range(size), maps).map(lambda i: (i, i)).partitionBy(reduces)


def test_a_shuffle_is_measured(sc):
    with ShuffleMeter(sc) as meter:
        assert shuffled(sc, 100, 4, 3).count() == 100
    written, read = meter.measured.stages
    assert (written.done.tasks, read.done.tasks) == (4, 3)
    assert written.done.written_records == read.done.read_records == 4 * 3
    # Two small integers in every pair.
    assert written.done.written == read.done.read == read.done.read_local > 4 * 100
    assert written.name.startswith("partitionBy at") and written.step is None
    assert 0 < written.task_seconds[0] <= written.task_seconds[1] <= written.task_seconds[2]
    assert written.began <= written.ended <= read.ended
    total = meter.measured.total
    assert (total.tasks, total.written, total.read) == (7, written.done.written, read.done.read)
    assert total.results > 0 and meter.measured.broadcast > 0
    assert meter.measured.failed.tasks == meter.measured.retried.tasks == 0
    assert meter.measured.spark == sc.version


def test_what_runs_before_and_after_is_not_measured(sc, footprint, temporary):
    shuffled(sc, 10, 2, 2).count()
    with ShuffleMeter(sc) as outer:
        shuffled(sc, 10, 3, 2).count()
        with ShuffleMeter(sc) as inner:
            shuffled(sc, 10, 4, 2).count()
        assert outer.measured.total.tasks == 5 + 6  # so far
        shuffled(sc, 10, 5, 2).count()
    shuffled(sc, 10, 6, 2).count()
    assert outer.measured.total.tasks == 5 + 6 + 7
    assert inner.measured.total.tasks == 6
    assert not list(temporary.iterdir())
    assert not footprint.left("thread")


def test_a_meter_outlives_an_error(sc, temporary):
    with pytest.raises(ZeroDivisionError), ShuffleMeter(sc) as meter:
        shuffled(sc, 10, 2, 2).count()
        raise ZeroDivisionError
    assert meter.measured.total.tasks == 4
    assert not list(temporary.iterdir())


def test_what_cannot_be_measured(sc):
    with pytest.raises(MeterError, match="sc must be a SparkContext but got 'local'"):
        ShuffleMeter("local")
    meter = ShuffleMeter(sc)
    with pytest.raises(MeterError, match="has not been on; use it as a context manager"):
        _ = meter.measured
    with meter, pytest.raises(MeterError, match="is on already; make another one"), meter:
        pass
    with meter:  # off, it may be used again
        shuffled(sc, 10, 2, 2).count()
    assert meter.measured.total.tasks == 4


def test_steps_of_a_training_are_told_apart(sc):
    source = sc.parallelize(small.RATINGS, 3)
    sc.setLocalProperty("spark.job.description", "mine")
    with ShuffleMeter(sc) as meter:
        ALS.train(source, 2, 2, blocks=2, seed=5, exchange="shuffle", listeners=()).unpersist()
    steps = {step.step: step.done for step in meter.measured.steps}
    assert list(steps) == ["links", "start", "1 products", "1 users", "2 products", "2 users"]
    # What one half-step writes the next one reads.
    chain = list(steps.values())[1:]
    for sender, receiver in pairwise(chain):
        assert sender.written == receiver.read > 0
        assert sender.written_records == receiver.read_records > 0
    assert chain[-1].written == 0
    assert sc.getLocalProperty("rddals.step") is None
    assert sc.getLocalProperty("spark.job.description") == "mine"
    sc.setLocalProperty("spark.job.description", None)


# ------------------------------------------------------------------ event logs of other programs

#: MLlib's ALS, with a task that fails once; Spark writes its log as the arguments say.
PROGRAM = """
import json, os, sys
from pyspark import SparkConf, SparkContext, TaskContext
from pyspark.mllib.recommendation import ALS

folder, *options = sys.argv[1:]
conf = SparkConf().setMaster("local[2,3]").set("spark.ui.enabled", "false")
conf.set("spark.eventLog.enabled", "true").set("spark.eventLog.dir", "file://" + folder)
for option in options:
    conf.set(*option.split("="))
sc = SparkContext(conf=conf)
sc.setLogLevel("OFF")

def fail_once(rows):
    context = TaskContext.get()
    if context.partitionId() == 1 and context.attemptNumber() == 0:
        raise RuntimeError("once")
    return rows

ratings = [(u, p, float(u % 3 + p % 2)) for u in range(9) for p in range(7) if (u + p) % 3]
assert sc.parallelize(ratings, 3).mapPartitions(fail_once).count() == len(ratings)
ALS.train(sc.parallelize(ratings, 3), 3, 2, blocks=2, seed=1)
sc.stop()
"""


@pytest.mark.long
def test_the_log_of_a_program_that_knows_nothing_of_rddals(tmp_path):
    options = [f"spark.eventLog.{setting}" for setting in ("compress=true", "rolling.enabled=true")]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), *options], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    (log,) = tmp_path.iterdir()
    assert all(piece.suffix == ".zstd" for piece in log.glob("events_*"))
    # Read by a process of its own, which has no Spark running.
    code = "import json, sys; from rddals.measure import read_event_log as read; "
    code += "print(json.dumps(read(sys.argv[1]).document()))"
    told = subprocess.run(
        [sys.executable, "-c", code, str(log)], capture_output=True, text=True, check=True
    )
    found = json.loads(told.stdout)
    assert sum(stage["failed"]["tasks"] for stage in found["stages"]) == 1
    half_steps = [s for s in found["stages"] if s["name"].startswith("flatMap at ALS.scala")]
    assert len(half_steps) == 4  # two iterations
    # Each sends a record from every block to every block, and reads what the one before sent.
    assert {s["done"]["written_records"] for s in half_steps} == {4}
    for sender, receiver in pairwise(half_steps):
        assert sender["done"]["written"] == receiver["done"]["read_local"] > 0
    assert all(stage["step"] is None for stage in found["stages"])


def test_a_damaged_log_is_told_of_and_the_jvm_left_running(sc, tmp_path):
    (tmp_path / "log.zstd").write_bytes(b"no Zstandard at all")
    with pytest.raises(EventLogError, match="cannot be decompressed: it is damaged"):
        read_event_log(tmp_path / "log.zstd")
    assert sc.parallelize([1]).count() == 1
