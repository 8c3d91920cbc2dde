"""DStreams of files and of lines from a socket."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
import warnings

import pytest

from rddals import StreamingALS
from stream_checkpoints import SETTINGS
from stream_files import mean_of


def wait_until(condition):
    """Wait until the condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def streams(sc):
    """A StreamingContext with short intervals, stopped after the test without Spark."""
    streaming = pytest.importorskip("pyspark.streaming", reason="this Spark has no DStreams")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        context = streaming.StreamingContext(sc, 0.2)
    yield context
    context.stop(stopSparkContext=False, stopGraceFully=False)


def parsed(line):
    user, product, stars = line.split(",")
    return int(user), int(product), float(stars)


class Learner:
    """A stream learned from a DStream, with a count of intervals."""

    def __init__(self, stream):
        self.als = StreamingALS(**SETTINGS)
        self.intervals = 0
        stream.foreachRDD(self.als.train)
        stream.foreachRDD(lambda _: self._count())

    def _count(self):
        self.intervals += 1

    def wait_intervals(self, intervals=2):
        end = self.intervals + intervals
        wait_until(lambda: self.intervals >= end)

    def assert_learned(self, batches):
        ratings = sum(map(len, batches))
        wait_until(lambda: self.als.model is not None and self.als.model.ratings >= ratings)
        self.wait_intervals()
        assert self.als.model.ratings == ratings
        assert self.als.model.mean == mean_of(batches)


def threads():
    """Return the threads of this process, without those of PySpark's JVM connection."""
    return {
        thread
        for thread in threading.enumerate()
        if "py4j" not in str(getattr(getattr(thread, "_target", None), "__module__", None))
    }


@pytest.mark.long
def test_files_moved_into_a_directory_are_learned_once(sc, streams, batches, tmp_path):
    source, outside = tmp_path / "source", tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    learner = Learner(streams.textFileStream(source.as_uri()).map(parsed))
    streams.start()
    learner.wait_intervals()
    assert learner.als.model is None
    before = threads()
    for number, batch in enumerate(batches[:3]):
        path = outside / f"{number}.csv"
        path.write_text("".join(f"{u},{p},{r}\n" for u, p, r in batch))
        path.rename(source / path.name)
        learner.assert_learned(batches[: number + 1])
    assert learner.als.model.batches > 3  # empty intervals included
    streams.stop(stopSparkContext=False, stopGraceFully=False)
    wait_until(lambda: threads() <= before)
    assert sc.parallelize([1, 2], 2).count() == 2
    users = {user for batch in batches[:3] for user, _, _ in batch}
    assert learner.als.model.users == len(users)


@pytest.mark.long
def test_lines_from_a_socket_are_learned_once(sc, streams, batches):
    before = threads()
    lines = queue.SimpleQueue()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                for line in iter(lines.get, None):
                    connection.sendall(line.encode())

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            received = streams.socketTextStream("127.0.0.1", server.getsockname()[1])
            learner = Learner(received.map(parsed))
            streams.start()
            learner.wait_intervals()
            assert learner.als.model is None
            for number, batch in enumerate(batches[:2]):
                for user, product, stars in batch:
                    lines.put(f"{user},{product},{stars}\n")
                learner.assert_learned(batches[: number + 1])
            streams.stop(stopSparkContext=False, stopGraceFully=False)
        finally:
            lines.put(None)
            with contextlib.suppress(OSError):  # ends accept() if nobody has connected
                socket.create_connection(server.getsockname(), 1).close()
            serving.join(10)
    assert not serving.is_alive()
    wait_until(lambda: threads() <= before)
    assert sc.parallelize([1, 2], 2).count() == 2
