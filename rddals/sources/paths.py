"""Paths of rating files: conversions, and the first line of a file."""

from __future__ import annotations

import re
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from rddals.errors import SourceError
from rddals.rdds.failures import summary
from rddals.rdds.hadoop import located


def first_line(spark: SparkSession, path: str) -> str | None:
    """Return the first line that is not blank of a possibly compressed file; None without one.

    A file that cannot be read raises `SourceError`.
    """
    files, location = located(spark.sparkContext, path)
    jvm: Any = spark._jvm
    factory = jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(
        spark._jsc.hadoopConfiguration()
    )
    try:
        stream = files.open(location)
        try:
            _refuse_frames(path, stream)
            codec = factory.getCodec(location)
            text = stream if codec is None else codec.createInputStream(stream)
            lines = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(text, "UTF-8"))
            while (line := lines.readLine()) is not None and not line.strip("\ufeff \t\r"):
                pass
            return None if line is None else str(line).removeprefix("\ufeff")
        finally:
            stream.close()
    except (Py4JJavaError, PySparkException) as error:
        remedy = "; rename it: Hadoop cannot read a file with a colon in its name"
        colon = ":" in path.rpartition("/")[2]
        raise SourceError(
            f"{plain(path)} cannot be read: {summary(error)}{remedy if colon else ''}"
        ) from error


def plain(path: str, typed: tuple[str, ...] = ()) -> str:
    """Return a path without the scheme of local files, unless it was typed with one."""
    if any(other.startswith("file://") for other in typed):
        return path
    return re.sub("^file:/+", "/", path)


def escaped(path: str) -> str:
    """Escape a path so that Spark does not treat it as a pattern."""
    return re.sub(r"([*?\[\]{}\\])", r"\\\1", path)


def quoted(paths: tuple[str, ...]) -> str:
    """Return at most two paths, and the number of others, for messages.

    Typed URLs stay; those that Spark lists, with one slash, do not.
    """
    more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
    return ", ".join(re.sub("^file:/(?!/)", "/", path) for path in paths[:2]) + more


#: First bytes of the files that the tools lz4 and snzip write. Hadoop's formats of the same
#: suffixes have none, and reading these as such exhausts Java's memory.
FRAMES = {".lz4": b"\x04\x22\x4d\x18", ".snappy": b"\xff\x06\x00\x00"}


def _refuse_frames(path: str, stream: Any) -> None:
    magic = FRAMES.get("." + path.rpartition(".")[2])
    if magic is None:
        return
    start = [stream.read() for _ in magic]  # -1 after the end
    if start == list(magic):
        raise SourceError(
            f"{plain(path)} is compressed in a format that Spark cannot read; decompress it, or "
            "compress it with gzip"
        )
    stream.seek(0)
