"""Measuring a running program."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pyspark import SparkContext

from rddals.errors import MeterError
from rddals.measure.events import read_event_log
from rddals.measure.measures import Measured
from rddals.rdds.context import is_stopped, refuse_connect

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


#: Event log settings: one plain file, with the block updates that broadcasts are counted from.
SETTINGS = {
    "compress": "false",
    "logBlockUpdates.enabled": "true",
    "overwrite": "true",
    "rolling.enabled": "false",
}


class ShuffleMeter:
    """Context manager that measures all jobs of a SparkContext, of any library.

    Parameters
    ----------
    sc : SparkContext

    Notes
    -----
    Spark's event log writer is registered as a listener and writes to a temporary file, which is
    removed on exit. Of stages that began earlier, the tasks that end inside the block count.
    """

    def __init__(self, sc: SparkContext) -> None:
        refuse_connect(sc)
        if not isinstance(sc, SparkContext):
            raise MeterError(f"sc must be a SparkContext but got {sc!r}.")
        self._sc = sc
        self._folder: Path | None = None
        self._listener: Any = None
        self._measured: Measured | None = None

    def __enter__(self) -> Self:
        if self._folder is not None:
            raise MeterError("This meter is already running. Create another one.")
        if is_stopped(self._sc):
            raise MeterError("The SparkContext is stopped. Pass a running one.")
        self._measured = None
        self._folder = Path(tempfile.mkdtemp(prefix="rddals-meter-"))
        try:
            self._listen()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._measured = self._read()
        finally:
            self._stop()

    @property
    def measured(self) -> Measured:
        """Measurements so far; after the block, those of the whole block."""
        if self._measured is not None:
            return self._measured
        if self._folder is None:
            raise MeterError("This meter was never started. Use it as a context manager.")
        return self._read()

    def _listen(self) -> None:
        """Register a listener that writes Spark's events to the folder."""
        sc, jvm = self._sc, self._sc._jvm
        context = sc._jsc.sc()
        conf = context.conf().clone()
        for name, value in SETTINGS.items():
            conf.set(f"spark.eventLog.{name}", value)
        assert self._folder is not None
        listener = jvm.org.apache.spark.scheduler.EventLoggingListener(
            sc.applicationId,
            jvm.scala.Option.empty(),
            jvm.java.net.URI(self._folder.as_uri()),
            conf,
            context.hadoopConfiguration(),
        )
        listener.start()
        self._listener = listener
        # Earlier events may still be queued for delivery.
        context.listenerBus().waitUntilEmpty()
        context.addSparkListener(listener)

    def _read(self) -> Measured:
        assert self._folder is not None
        if not is_stopped(self._sc):
            self._sc._jsc.sc().listenerBus().waitUntilEmpty()
        (log,) = self._folder.iterdir()
        return read_event_log(log)

    def _stop(self) -> None:
        if self._listener is not None:
            if not is_stopped(self._sc):
                self._sc._jsc.sc().removeSparkListener(self._listener)
            self._listener.stop()
            self._listener = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
