"""Traffic measured live, and from the event logs of other programs."""

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
def temporary_folder(tmp_path, monkeypatch):
    """A folder for the temporary files of one test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def shuffled(sc, size, maps, reduces):
    return sc.parallelize(range(size), maps).map(lambda i: (i, i)).partitionBy(reduces)


def test_shuffle_is_measured(sc):
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


def test_only_jobs_inside_the_meter_are_measured(sc, footprint, temporary_folder):
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
    assert not list(temporary_folder.iterdir())
    assert not footprint.remaining("thread")


def test_measurements_survive_an_error(sc, temporary_folder):
    with pytest.raises(ZeroDivisionError), ShuffleMeter(sc) as meter:
        shuffled(sc, 10, 2, 2).count()
        raise ZeroDivisionError
    assert meter.measured.total.tasks == 4
    assert not list(temporary_folder.iterdir())


def test_invalid_use_raises(sc):
    with pytest.raises(MeterError, match="sc must be a SparkContext but got 'local'"):
        ShuffleMeter("local")
    meter = ShuffleMeter(sc)
    with pytest.raises(MeterError, match=r"was never started\. Use it as a context manager"):
        _ = meter.measured
    with meter, pytest.raises(MeterError, match=r"already running\. Create another one"), meter:
        pass
    with meter:  # a stopped meter can be started again
        shuffled(sc, 10, 2, 2).count()
    assert meter.measured.total.tasks == 4


def test_training_steps_are_measured_separately(sc):
    source = sc.parallelize(small.RATINGS, 3)
    sc.setLocalProperty("spark.job.description", "mine")
    with ShuffleMeter(sc) as meter:
        ALS.train(source, 2, 2, blocks=2, seed=5, exchange="shuffle", listeners=()).unpersist()
    steps = {step.step: step.done for step in meter.measured.steps}
    assert list(steps) == ["links", "start", "1 products", "1 users", "2 products", "2 users"]
    # Each half-step reads the bytes that the previous one wrote.
    chain = list(steps.values())[1:]
    for sender, receiver in pairwise(chain):
        assert sender.written == receiver.read > 0
        assert sender.written_records == receiver.read_records > 0
    assert chain[-1].written == 0
    assert sc.getLocalProperty("rddals.step") is None
    assert sc.getLocalProperty("spark.job.description") == "mine"
    sc.setLocalProperty("spark.job.description", None)


# ------------------------------------------------------------------ event logs of other programs

#: MLlib's ALS, with a task that fails once; the arguments configure its event log.
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
def test_event_log_of_a_program_without_rddals(tmp_path):
    options = [f"spark.eventLog.{setting}" for setting in ("compress=true", "rolling.enabled=true")]
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), *options], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    (log,) = tmp_path.iterdir()
    assert all(piece.suffix == ".zstd" for piece in log.glob("events_*"))
    # Read by another process, in which no Spark runs.
    code = "import json, sys; from rddals.measure import read_event_log as read; "
    code += "print(json.dumps(read(sys.argv[1]).document()))"
    reader = subprocess.run(
        [sys.executable, "-c", code, str(log)], capture_output=True, text=True, check=True
    )
    document = json.loads(reader.stdout)
    assert sum(stage["failed"]["tasks"] for stage in document["stages"]) == 1
    half_steps = [s for s in document["stages"] if s["name"].startswith("flatMap at ALS.scala")]
    assert len(half_steps) == 4  # two iterations
    # Each sends a record from every block to every block, and reads those of the previous.
    assert {s["done"]["written_records"] for s in half_steps} == {4}
    for sender, receiver in pairwise(half_steps):
        assert sender["done"]["written"] == receiver["done"]["read_local"] > 0
    assert all(stage["step"] is None for stage in document["stages"])


def test_damaged_log_raises_and_keeps_the_jvm(sc, tmp_path):
    (tmp_path / "log.zstd").write_bytes(b"no Zstandard at all")
    with pytest.raises(EventLogError, match="cannot be decompressed: it is damaged"):
        read_event_log(tmp_path / "log.zstd")
    assert sc.parallelize([1]).count() == 1
