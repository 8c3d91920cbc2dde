"""What the command stream does: it learns the files of a folder as they come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from time import perf_counter
from types import FrameType

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

from rddals import BatchLearned, StreamingALS
from rddals.cli.failures import InputError
from rddals.cli.files import check_stream, save_streamed, stream_folder, stream_lock
from rddals.cli.options import Files, Learning, SparkOptions
from rddals.cli.output import Output
from rddals.rdds.hadoop import exists, qualified
from rddals.sources.faults import Ratings
from rddals.sources.paths import escaped, path_of, plain
from rddals.sources.readers import read_batch
from rddals.streaming.file_source import FileSourceLog

__all__ = ["stream"]

#: Seconds between two looks whether a signal has come.
WAIT = 0.2

#: Of files as such. The query finds them, and does not read what is in them.
FILES = "path string, modificationTime timestamp, length long, content binary"
#: Spark passes over a file that is a week older than another, and says nothing.
ANY_AGE = "36500d"


def stream(
    where: SparkOptions, output: Output, source: Files, learning: Learning, out: str
) -> None:
    """Learn batch by batch from files, until there are no more or a signal comes; save."""
    with where.session(output) as spark, signalled() as stop, ExitStack() as ends:
        check_stream(spark, source.folder, out)
        ends.enter_context(stream_lock(spark, out))
        als = _begin(learning, out)
        checkpoint = f"{stream_folder(out)}/files"
        found = FileSourceLog(spark.sparkContext, checkpoint)
        _check_whole(spark, source.folder, out, als, found)
        output.fact("reading", source.folder + ("" if source.once else ", until Ctrl-C"))
        if als.model is not None:
            output.fact(
                "going on",
                f"after {als.model.batches:,} batches of {als.model.ratings:,} ratings",
            )
        began = perf_counter()
        learner = _Learner(spark, output, source, found, als)
        learner.run(checkpoint, stop)
        if als.model is None:
            output.fact("saved", "nothing; there was no rating")
        else:
            with output.busy("saving"):
                matrix = als.model.toMatrixFactorizationModel()
                try:
                    save_streamed(spark, matrix, out)
                finally:
                    matrix.unpersist()
            output.fact("saved", out)
        model = als.model
        output.result(
            {
                "model": None if model is None else out,
                "input": source.folder,
                "settings": asdict(learning),
                "batches": 0 if model is None else model.batches,
                "ratings": 0 if model is None else model.ratings,
                "users": 0 if model is None else model.users,
                "products": 0 if model is None else model.products,
                "learned": asdict(learner.learned),
                "seconds": perf_counter() - began,
            }
        )


def _begin(learning: Learning, out: str) -> StreamingALS:
    """The stream that is kept at `out`, or a new one."""
    return StreamingALS(
        rank=learning.rank,
        iterations=learning.iterations,
        lambda_=learning.lambda_,
        gamma=learning.gamma,
        blocks=learning.blocks,
        seed=learning.seed,
        update=learning.update,
        userPartitioner=learning.partitioner,
        productPartitioner=learning.partitioner,
        exchange=learning.exchange,
        badRatings=learning.bad_ratings,
        checkpointLocation=f"{stream_folder(out)}/state",
    )


def _check_whole(
    spark: SparkSession, folder: str, out: str, als: StreamingALS, found: FileSourceLog
) -> None:
    """Refuse a stream of which a part is gone, or that has read another folder."""
    last = found.last_batch
    kept = stream_folder(out)
    gone = None
    if als.model is not None and last is None:
        gone = f"{kept}/files, which tells what files were learned,"
    if als.model is None and last is not None and exists(spark, f"{out}/metadata"):
        gone = f"{kept}/state, which holds what was learned,"
    if gone is not None:
        raise InputError(f"{gone} is gone; restore it, or begin anew with another --out")
    if last is not None:
        *_, files = found.of_batch(last)
        file, inside = path_of(spark, files[-1]), qualified(spark, folder).rstrip("/") + "/"
        if not file.startswith(inside):
            raise InputError(
                f"{folder}: the stream at {out} has read {plain(file)}, which is not in it; "
                "pass the folder it was begun with, by the same name, or another --out"
            )


class Stop:
    """Whether a signal has asked for an end.

    No `threading.Event`: a handler that comes while the main thread is inside of one would wait
    for itself.
    """

    requested = False


@contextmanager
def signalled() -> Iterator[Stop]:
    """SIGTERM and the first Ctrl-C ask for an end; the second Ctrl-C is one."""
    stop = Stop()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    had = {
        number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in had.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class Learned:
    """What became of this run's batches."""

    batches: int = 0
    ratings: int = 0
    skipped: int = 0


class _Ended(Exception):
    """A batch came after the end was asked for; it is learned the next time."""


class _Learner:
    """Learns what Spark's file source finds."""

    def __init__(
        self,
        spark: SparkSession,
        output: Output,
        source: Files,
        found: FileSourceLog,
        als: StreamingALS,
    ) -> None:
        self.learned = Learned()
        self._spark = spark
        self._output = output
        self._source = source
        self._found = found
        self._als = als
        self._in_batch = threading.Lock()
        self._ended = False
        self._error: Exception | None = None

    def run(self, checkpoint: str, stop: Stop) -> None:
        """Learn until a signal comes, or, with ``once``, all is learned."""
        source = self._source
        reader = self._spark.readStream.format("binaryFile").schema(FILES)
        if source.per_batch is not None:
            reader = reader.option("maxFilesPerTrigger", source.per_batch)
        reader = reader.options(recursiveFileLookup="true", maxFileAge=ANY_AGE)
        files = reader.load(escaped(source.folder))
        writer = files.writeStream.option("checkpointLocation", checkpoint).foreachBatch(self.learn)
        if source.once:
            writer = writer.trigger(availableNow=True)
        else:
            writer = writer.trigger(processingTime=f"{round(source.every * 1000)} milliseconds")
        query = writer.start()
        try:
            while query.isActive and not stop.requested:
                query.awaitTermination(WAIT)
            failed = query.exception()
        except StreamingQueryException as error:
            failed = error
        finally:
            # A query that is stopped cancels its jobs. So the batch that it is in comes to its end
            # first; a further one is refused, and must not wait for a lock that waits for it.
            self._ended = True
            try:
                with self._in_batch:
                    pass
            finally:
                query.stop()
        if self._error is not None:
            raise self._error
        if failed is not None:
            raise failed

    def learn(self, files: DataFrame, batch: int) -> None:
        """Learn one batch; Spark calls this, in a thread of its own."""
        with self._in_batch:
            if self._ended:
                raise _Ended
            try:
                self._learn(batch)
            except Exception as error:
                self._error = error
                raise

    def _learn(self, batch: int) -> None:
        read: list[Ratings] = []
        learned: list[BatchLearned] = []

        def batches() -> Iterator[DataFrame]:
            for urls in self._found.of_batch(batch):
                paths = [path_of(self._spark, url) for url in urls]
                ratings = read_batch(self._spark, paths, self._source.columns, self._source.form)
                if ratings is not None:
                    read.append(ratings)
                    yield ratings.frame
                    assert self._als.learned is not None
                    learned.append(self._als.learned)

        try:
            self._als.updateBatch(batches(), batch)
        except Exception:
            with read[-1].locating_faults() if read else nullcontext():
                raise
        # Nothing, if the batch is given once more: it was saved before the query was killed.
        for one in learned:
            self._print_batch(one)

    def _print_batch(self, learned: BatchLearned) -> None:
        self.learned.batches += 1
        self.learned.ratings += learned.ratings
        self.learned.skipped += learned.skipped
        parts = [
            f"{learned.ratings:,} ratings",
            *([f"{learned.skipped:,} skipped"] if learned.skipped else []),
            f"{learned.new_users:,} new users",
            f"{learned.new_products:,} new products",
            "not predicted" if learned.rmse is None else f"RMSE before {learned.rmse:.4f}",
            f"{learned.seconds:.2f} s",
        ]
        self._output.fact(f"batch {learned.batch:,}", ", ".join(parts))
