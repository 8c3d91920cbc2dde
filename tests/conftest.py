"""Fixtures: the small matrix, and the local Spark that all tests share."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import small_matrix as small

TESTS = Path(__file__).parent

# Set before any module imports PySpark: workers use the Python that runs the tests.
os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
# For every JVM that the tests start: none runs long enough for the C2 compiler to pay off. Code
# compiled by C1 needs more stack, which MLlib's long lineages use up.
os.environ["SPARK_SUBMIT_OPTS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xss2m"
os.environ["SPARK_DAEMON_JAVA_OPTS"] = os.environ["SPARK_SUBMIT_OPTS"]  # masters and workers


@pytest.fixture(scope="session")
def small_matrix():
    """Ratings of the small matrix as (user, product, rating)."""
    return small.RATINGS


@pytest.fixture(scope="session")
def ratings():
    """About 240 ratings by 30 users of 40 products; every product has one."""
    rng = np.random.default_rng(20)
    rated = rng.random((30, 40)) < 0.18
    rated[np.arange(40) % 30, np.arange(40)] = True
    tastes, traits = rng.normal(size=(30, 2)), rng.normal(size=(40, 2))
    stars = np.clip(np.rint(3 + tastes @ traits.T), 1, 5)
    return tuple(
        (int(u), int(p), float(stars[u, p])) for u, p in zip(*rated.nonzero(), strict=True)
    )


@pytest.fixture(scope="session")
def local_dir(tmp_path_factory):
    """Folder of Spark's temporary files: shuffles, broadcasts, spills."""
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="session")
def _spark(local_dir):
    from pyspark import SparkConf, SparkContext

    import rddals  # noqa: F401 - finds a Java if there is none on the PATH

    conf = (
        SparkConf()
        .setMaster("local[2]")
        .setAppName("rddals tests")
        .set("spark.local.dir", str(local_dir))
        .set("spark.ui.enabled", "false")
        .set("spark.ui.showConsoleProgress", "false")
        .set("spark.shuffle.compress", "false")  # so that sizes are predictable
        .set("spark.ui.retainedStages", "10000")
        .set("spark.ui.retainedJobs", "10000")
        .set("spark.sql.shuffle.partitions", "2")
        .set("spark.log.level", "ERROR")
        # PySpark 4.1 and later; over TCP a task waits 40 ms (rdds.worker_tuning).
        .set("spark.python.unix.domain.socket.enabled", "true")
        # Workers import the tests' modules from any current folder.
        .setExecutorEnv("PYTHONPATH", os.pathsep.join((str(TESTS.parent), str(TESTS / "support"))))
        .set("spark.python.daemon.module", "worker_daemon")
    )
    context = SparkContext(conf=conf)
    context.setLogLevel("ERROR")
    yield context
    context.stop()


@pytest.fixture
def sc(_spark):
    """The local SparkContext. RDDs that a test leaves persisted are released after it."""
    before = set(_spark._jsc.getPersistentRDDs())
    yield _spark
    for id_, rdd in dict(_spark._jsc.getPersistentRDDs()).items():
        if id_ not in before:
            rdd.unpersist(True)


class Footprint:
    """Resources of Spark and of this process, compared with a baseline."""

    def __init__(self, sc, local_dir):
        self._sc = sc
        self._local_dir = local_dir
        self.baseline = self.current()

    def current(self):
        """Return all current resources as (kind, name)."""
        from pyspark import accumulators

        resources = {("persisted RDD", id_) for id_ in self._sc._jsc.getPersistentRDDs()}
        resources |= {("shuffle file", path.name) for path in self._local_dir.rglob("shuffle_*")}
        resources |= {("broadcast file", name) for name in os.listdir(self._sc._temp_dir)}
        resources |= {("thread", thread.ident) for thread in threading.enumerate()}
        resources |= {("accumulator", id_) for id_ in accumulators._accumulatorRegistry}
        return resources

    def remaining(self, *kinds):
        """Return resources beyond the baseline, of the given kinds or of all.

        Spark deletes shuffle files in the background, so this waits for them to go.
        """
        deadline = time.monotonic() + 10
        while True:
            new = self.current() - self.baseline
            remaining = {resource for resource in new if not kinds or resource[0] in kinds}
            # A model's RDDs stay persisted: there is no deletion to wait for.
            if time.monotonic() > deadline or all(kind == "persisted RDD" for kind, _ in remaining):
                return remaining
            threading.Event().wait(0.01)


@pytest.fixture
def footprint(sc, local_dir):
    """Finds resources that a test leaves in Spark and in this process."""
    from rddals.rdds.task_reports import TaskReports

    TaskReports(sc).close()  # creates the context's shared accumulator
    return Footprint(sc, local_dir)


@dataclass(frozen=True)
class Stage:
    """A stage that Spark ran and did not skip."""

    tasks: int
    bytes_written: int
    records_written: int


@pytest.fixture
def stages_of(sc):
    """Function that returns the stages of each job of a job group."""

    def stages_of(group):
        spark = sc._jsc.sc()
        spark.listenerBus().waitUntilEmpty()
        tracker = sc.statusTracker()
        jobs = []
        for job in sorted(tracker.getJobIdsForGroup(group)):
            attempts = map(spark.statusStore().lastStageAttempt, tracker.getJobInfo(job).stageIds)
            jobs.append(
                [
                    Stage(a.numCompleteTasks(), a.shuffleWriteBytes(), a.shuffleWriteRecords())
                    for a in attempts
                    if a.numCompleteTasks()
                ]
            )
        return jobs

    yield stages_of
    sc._jsc.clearJobGroup()


@pytest.fixture(scope="session")
def spark(_spark):
    """The SparkSession of the shared context."""
    from pyspark.sql import SparkSession

    return SparkSession(_spark)


@pytest.fixture
def checkpoint_dir(sc, tmp_path):
    """A checkpoint directory, set for one test."""
    sc.setCheckpointDir(str(tmp_path / "checkpoints"))
    yield tmp_path / "checkpoints"
    getattr(sc._jsc.sc(), "checkpointDir_$eq")(sc._jvm.scala.Option.empty())
