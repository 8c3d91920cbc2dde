"""Measuring while a program runs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pyspark import SparkContext

from rddals.errors import MeterError
from rddals.measure.events import read_event_log
from rddals.measure.stages import Measured
from rddals.rdds.context import is_stopped

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["ShuffleMeter"]


#: How Spark writes the events down: to be read by a program, soon and once.
SETTINGS = {
    "compress": "false",
    "logBlockUpdates.enabled": "true",
    "overwrite": "true",
    "rolling.enabled": "false",
}


class ShuffleMeter:
    """Measures what runs in a SparkContext while the meter is on, whatever runs it.

    Parameters
    ----------
    sc : SparkContext

    Notes
    -----
    Spark's own writer of event logs is made to listen, to a file that goes when the meter does.
    Stages that began before the meter count with the tasks that end within it.
    """

    def __init__(self, sc: SparkContext) -> None:
        if not isinstance(sc, SparkContext):
            raise MeterError(f"sc must be a SparkContext but got {sc!r}.")
        self._sc = sc
        self._folder: Path | None = None
        self._listener: Any = None
        self._measured: Measured | None = None

    def __enter__(self) -> Self:
        if self._folder is not None:
            raise MeterError("This meter is on already; make another one.")
        if is_stopped(self._sc):
            raise MeterError("The SparkContext is stopped; pass a running one.")
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
        """What has run so far; after the block, what has run within it."""
        if self._measured is not None:
            return self._measured
        if self._folder is None:
            raise MeterError("This meter has not been on; use it as a context manager.")
        return self._read()

    def _listen(self) -> None:
        """Have Spark write its events to the folder."""
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
        # What happened before is on its way to listeners still.
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
