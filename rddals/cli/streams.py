"""The command stream: learns new files of a folder batch by batch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from time import perf_counter
from types import FrameType
from typing import Any

from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession

from rddals import BatchLearned, StreamingALS
from rddals.cli.batch_files import BatchFiles
from rddals.cli.failures import InputError
from rddals.cli.files import check_stream, save_streamed, stream_folder, stream_lock
from rddals.cli.options import Common, Files, Learning, column_names
from rddals.cli.output import Output
from rddals.rdds.hadoop import exists, qualified
from rddals.sources.paths import escaped, plain
from rddals.sources.ratings import Ratings
from rddals.sources.readers import read_batch

#: Seconds between two checks for a signal.
POLL_SECONDS = 0.2

#: Schema of the binary file source. The query selects no content, so none is read.
FILE_SCHEMA = "path string, modificationTime timestamp, length long, content binary"
#: By default Spark silently skips files a week older than the newest one.
MAX_FILE_AGE = "36500d"


def stream(
    common: Common, output: Output, folder: str, source: Files, learning: Learning, out: str
) -> None:
    """Learn files batch by batch until none are left or a signal arrives; save the model."""
    with common.session(output) as spark, signalled() as stop, ExitStack() as stack:
        check_stream(spark, folder, out)
        stack.enter_context(stream_lock(spark, out))
        # Resumes the stream stored at `out`, if there is one.
        location = f"{stream_folder(out)}/state"
        als = StreamingALS(**learning.arguments(), checkpointLocation=location)
        _check_state(spark, folder, out, als)
        output.fact("reading", folder + ("" if source.once else ", until Ctrl-C"))
        if als.model is not None:
            output.fact(
                "resuming",
                f"after {als.model.batches:,} batches of {als.model.ratings:,} ratings",
            )
        start = perf_counter()
        learner = _Learner(spark, output, folder, source, out, als)
        learner.run(stop)
        if als.model is None:
            waiting = learner.files(spark.read).count()
            stopped = f"stopped before the first batch; {waiting} files wait in {folder}"
            output.fact(
                "saved", f"nothing; {stopped if stop.requested else 'no ratings were read'}"
            )
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
                "input": folder,
                "settings": learning.document(),
                "batches": 0 if model is None else model.batches,
                "ratings": 0 if model is None else model.ratings,
                "users": 0 if model is None else model.users,
                "products": 0 if model is None else model.products,
                "learned": asdict(learner.learned),
                "seconds": perf_counter() - start,
            }
        )


def _record(out: str) -> str:
    """Return the path of the record of the last batch's files."""
    return f"{stream_folder(out)}/batch.json"


def _check_state(spark: SparkSession, folder: str, out: str, als: StreamingALS) -> None:
    """Reject a stream with missing state, or one that has read another folder.

    A new stream records its folder.
    """
    state = stream_folder(out)
    logs = (f"{state}/files/{name}" for name in ("offsets", "sources"))
    missing = None
    if als.model is not None and not all(exists(spark, log) for log in logs):
        missing = f"{state}/files, the log of learned files,"
    if als.model is None and exists(spark, f"{out}/metadata"):
        missing = f"{state}/state, the state of the model,"
    if missing is not None:
        raise InputError(f"{missing} is missing; restore it, or start again with another --out")
    last = BatchFiles.load(spark, _record(out))
    if last is not None and not last.folder.startswith(_url(spark, folder)):
        raise InputError(
            f"{folder}: the stream at {out} has read {plain(last.folder)}, which is outside it; "
            "pass the same folder as before, under the same name, or another --out"
        )
    if last is None:
        BatchFiles(_url(spark, folder), -1, []).save(spark, _record(out))


def _url(spark: SparkSession, folder: str) -> str:
    return qualified(spark, folder).rstrip("/") + "/"


class Stop:
    """Flag that a signal handler sets.

    A `threading.Event` could deadlock: the handler may run while the main thread holds its lock.
    """

    requested = False


@contextmanager
def signalled() -> Iterator[Stop]:
    """Set the flag on SIGTERM and the first Ctrl-C; a second Ctrl-C interrupts at once."""
    stop = Stop()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    handlers = {
        number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class Learned:
    """Counts of the batches of this run."""

    batches: int = 0
    ratings: int = 0
    skipped: int = 0


class _Ended(Exception):
    """A batch arrived after the stop request; the next run learns it."""


@dataclass(eq=False)
class _Learner:
    """Consumer of the batches of Spark's file source."""

    spark: SparkSession
    output: Output
    folder: str
    source: Files
    out: str
    als: StreamingALS
    learned: Learned = field(default_factory=Learned, init=False)
    _in_batch: threading.Lock = field(default_factory=threading.Lock, init=False)
    _stopping: bool = field(default=False, init=False)
    _error: Exception | None = field(default=None, init=False)

    def run(self, stop: Stop) -> None:
        """Learn until a signal arrives or, with ``once``, until all files are learned."""
        source = self.source
        reader = self.spark.readStream.schema(FILE_SCHEMA).option("maxFileAge", MAX_FILE_AGE)
        if source.per_batch is not None:
            reader = reader.option("maxFilesPerTrigger", source.per_batch)
        files = self.files(reader)
        checkpoint = f"{stream_folder(self.out)}/files"
        writer = files.writeStream.option("checkpointLocation", checkpoint).foreachBatch(self.learn)
        if source.once:
            writer = writer.trigger(availableNow=True)
        else:
            writer = writer.trigger(processingTime=f"{round(source.every * 1000)} milliseconds")
        query = writer.start()
        try:
            while query.isActive and not stop.requested:
                query.awaitTermination(POLL_SECONDS)
            failure = query.exception()
        except StreamingQueryException as error:
            failure = error
        finally:
            # Stopping the query cancels its jobs, so the current batch must finish first. The stop
            # itself does not hold the lock: a later batch takes the lock to be rejected.
            self._stopping = True
            try:
                with self._in_batch:
                    pass
            finally:
                query.stop()
        if self._error is not None:
            raise self._error
        if failure is not None:
            raise failure

    def files(self, reader: Any) -> DataFrame:
        """Return the folder's files, from a reader of a stream or of what is there now."""
        reader = reader.format("binaryFile").option("recursiveFileLookup", "true")
        files: DataFrame = reader.load(escaped(self.folder)).select("path", "modificationTime")
        return files

    def learn(self, files: DataFrame, batch: int) -> None:
        """Learn one batch. Spark calls this in its own thread."""
        with self._in_batch:
            if self._stopping:
                raise _Ended
            try:
                self._learn_files(self._batch_files(files, batch))
            except Exception as error:
                self._error = error
                raise

    def _batch_files(self, frame: DataFrame, batch: int) -> BatchFiles:
        """Return the files of a batch, with those deleted since it was first begun."""
        files = BatchFiles.listed(frame, _url(self.spark, self.folder), batch)
        begun = BatchFiles.load(self.spark, _record(self.out))
        if begun is not None and begun.batch == batch:
            files = begun.with_files(files.files)
        files.save(self.spark, _record(self.out))
        return files

    def _learn_files(self, files: BatchFiles) -> None:
        read: list[Ratings] = []
        columns = column_names(self.source.columns)

        def batches() -> Iterator[DataFrame]:
            for paths in files.split(self.source.per_batch):
                ratings = read_batch(self.spark, paths, columns, self.source.form)
                if ratings is not None:
                    read.append(ratings)
                    yield ratings.frame

        try:
            learned = self.als.updateBatch(batches(), files.batch)
        except Exception:
            with read[-1].locating_faults() if read else nullcontext():
                raise
        # Empty for a repeated batch, which was saved before the query was killed.
        for batch_learned in learned:
            self._print_batch(batch_learned)

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
        self.output.fact(f"batch {learned.batch:,}", ", ".join(parts))
