"""Reading Spark event logs: plain or compressed, single files or rolled."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from py4j.protocol import Py4JError
from pyspark import SparkContext

from rddals.errors import EventLogError
from rddals.measure.measures import Measured
from rddals.measure.stages import summarise

#: Prefix of the directories that ``spark.eventLog.rolling.enabled`` writes.
ROLLED_PREFIX = "eventlog_v2_"
PIECE_NAME = re.compile(r"events_(\d+)_")
#: File name suffixes of the compression codecs that Spark uses for logs.
CODECS = frozenset((".lz4", ".lzf", ".snappy", ".zstd"))


class _DamagedError(EventLogError):
    """A log that cannot be decompressed."""


def read_event_log(path: str | Path) -> Measured:
    """Measure a program from its event log.

    Parameters
    ----------
    path : str or Path
        Log written with ``spark.eventLog.enabled``: a file on a local disk (or its ``file:`` URL),
        compressed or not, or the directory of a rolled log. The log of a running program is read
        up to its last event.

    Returns
    -------
    Measured

    Raises
    ------
    EventLogError
        If `path` is not an event log.

    Notes
    -----
    Spark's JVM decompresses the logs. It is started if it is not running.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise EventLogError(f"path must be the path of an event log but got {path!r}.")
    url = urlsplit(str(path))
    if "://" in str(path) and url.scheme != "file":
        raise EventLogError(f"{path} is not on a local disk. Copy it there, and pass the copy.")
    pieces = _pieces(Path(url2pathname(url.path) if url.scheme == "file" else path))
    try:
        result = summarise(_lines(pieces))
    except UnicodeDecodeError:
        raise EventLogError(
            f"{path} is not a Spark event log: it is not UTF-8 text. If the log was compressed "
            "after Spark wrote it, decompress it first."
        ) from None
    except _DamagedError:
        raise
    except EventLogError as error:
        raise EventLogError(f"{path} is not a Spark event log, or is damaged: {error}.") from None
    if not result.spark:
        raise EventLogError(
            f"{path} is not a Spark event log: it does not begin with SparkListenerLogStart."
        )
    return result


def _pieces(path: Path) -> list[Path]:
    """Return the files of a log in order."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        problem = "is neither a file nor a directory" if path.exists() else "does not exist"
        raise EventLogError(f"{path} {problem}. Pass an event log file or directory.")
    numbered = {
        int(match[1]): piece for piece in path.iterdir() if (match := PIECE_NAME.match(piece.name))
    }
    if numbered:
        return [numbered[number] for number in sorted(numbered)]
    entries = sorted(each.name for each in path.iterdir())
    raise EventLogError(
        f"{path} is a directory but not a rolled event log ({ROLLED_PREFIX}...). It contains "
        f"{', '.join(entries[:5]) or 'nothing'}{' and others' if len(entries) > 5 else ''}. Pass "
        "the path of an event log."
    )


def _lines(pieces: list[Path]) -> Iterator[str]:
    for piece in pieces:
        with _decompressed(piece) as plain, plain.open(encoding="utf-8") as lines:
            yield from lines


@contextmanager
def _decompressed(path: Path) -> Iterator[Path]:
    """Yield `path` itself if it is not compressed, else a decompressed temporary copy."""
    codec = path.with_suffix("") if path.suffix == ".inprogress" else path
    if codec.suffix not in CODECS:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rddals-") as folder, _jvm() as jvm:
        copy = Path(folder, "events")
        location = jvm.org.apache.hadoop.fs.Path(path.absolute().as_uri())
        filesystem = location.getFileSystem(jvm.org.apache.hadoop.conf.Configuration())
        reader = jvm.org.apache.spark.deploy.history.EventLogFileReader
        try:
            stream = reader.openEventLog(location, filesystem)
            try:
                jvm.org.apache.commons.io.FileUtils.copyInputStreamToFile(
                    stream, jvm.java.io.File(str(copy))
                )
            finally:
                stream.close()
        except Py4JError as error:
            raise _DamagedError(
                f"{path} cannot be decompressed: it is damaged. Restore the file."
            ) from error
        yield copy


@contextmanager
def _jvm() -> Iterator[Any]:
    """Yield the JVM of the active SparkContext, or a temporary one."""
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
