"""Spark's event logs as files: plain or compressed, in one piece or rolled."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkContext

from rddals.errors import EventLogError
from rddals.measure.stages import Measured, measured

__all__ = ["read_event_log"]

#: Of a log in pieces, as ``spark.eventLog.rolling.enabled`` makes it.
ROLLED = "eventlog_v2_"
PIECE = re.compile(r"events_(\d+)_")
#: Codecs that Spark compresses logs with; the end of a file's name says which.
CODECS = frozenset((".lz4", ".lzf", ".snappy", ".zstd"))


class _DamagedError(EventLogError):
    """A log cannot be decompressed."""


def read_event_log(path: str | Path) -> Measured:
    """What a program moved, from the log of its events.

    Parameters
    ----------
    path : str or Path
        What Spark wrote with ``spark.eventLog.enabled``: a file, compressed or not, or the
        directory of a log that is rolled. A program that still runs has written some of it.

    Returns
    -------
    Measured

    Raises
    ------
    EventLogError
        If there is no event log at `path`.

    Notes
    -----
    Compressed logs are read by Spark's JVM, which is started where none runs.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise EventLogError(f"path must be that of an event log but got {path!r}.")
    pieces = _pieces(Path(path))
    try:
        found = measured(_lines(pieces))
    except UnicodeDecodeError:
        raise EventLogError(
            f"{path} is no event log of Spark: it is no text; a log that was compressed later has "
            "to be unpacked first."
        ) from None
    except _DamagedError:
        raise
    except EventLogError as error:
        raise EventLogError(f"{path} is no event log of Spark, or damaged: {error}.") from None
    if not found.spark:
        raise EventLogError(
            f"{path} is no event log of Spark: it does not begin with SparkListenerLogStart."
        )
    return found


def _pieces(path: Path) -> list[Path]:
    """The files of a log, in order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        what = "no file or directory" if path.exists() else "nothing"
        raise EventLogError(f"There is {what} at {path}; pass an event log, a file or directory.")
    numbered = {
        int(found[1]): piece for piece in path.iterdir() if (found := PIECE.match(piece.name))
    }
    if numbered:
        return [numbered[number] for number in sorted(numbered)]
    inside = sorted(each.name for each in path.iterdir())
    raise EventLogError(
        f"{path} is a directory but no rolled event log ({ROLLED}...); pass one of what is in it: "
        f"{', '.join(inside[:5]) or 'nothing'}{', ...' if len(inside) > 5 else ''}."
    )


def _lines(pieces: list[Path]) -> Iterator[str]:
    for piece in pieces:
        with _plain(piece) as plain, plain.open(encoding="utf-8") as lines:
            yield from lines


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """`path`, or a copy of it that is not compressed."""
    codec = path.with_suffix("") if path.suffix == ".inprogress" else path
    if codec.suffix not in CODECS:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rddals-") as folder, _jvm() as jvm:
        copy = Path(folder, "events")
        where = jvm.org.apache.hadoop.fs.Path(path.absolute().as_uri())
        files = where.getFileSystem(jvm.org.apache.hadoop.conf.Configuration())
        reader = jvm.org.apache.spark.deploy.history.EventLogFileReader
        try:
            stream = reader.openEventLog(where, files)
            try:
                jvm.org.apache.commons.io.FileUtils.copyInputStreamToFile(
                    stream, jvm.java.io.File(str(copy))
                )
            finally:
                stream.close()
        except Py4JError as error:
            raise _DamagedError(f"{path} cannot be decompressed: it is damaged.") from error
        yield copy


@contextmanager
def _jvm() -> Iterator[Any]:
    """A JVM with Spark in it: that of the SparkContext, or one for a while."""
    active = SparkContext._active_spark_context
    if active is not None and active._jvm is not None:
        yield active._jvm
        return
    from pyspark.java_gateway import launch_gateway

    gateway = launch_gateway()
    try:
        yield gateway.jvm
    finally:
        gateway.shutdown()
        gateway.proc.stdin.close()
        gateway.proc.wait()
