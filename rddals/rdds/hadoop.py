"""Files wherever Spark keeps them: this disk, HDFS, a bucket."""

from __future__ import annotations

from typing import Any

from pyspark import SparkContext

__all__ = ["cause", "located", "names_in", "text_of"]


def located(sc: SparkContext, path: str) -> tuple[Any, Any]:
    """The Hadoop file system of a path, and the path as it knows it."""
    location = sc._jvm.org.apache.hadoop.fs.Path(path)
    return location.getFileSystem(sc._jsc.hadoopConfiguration()), location


def names_in(sc: SparkContext, path: str) -> list[str]:
    """What the files in a directory are called; none where there is no directory."""
    files, location = located(sc, path)
    if not files.exists(location):
        return []
    return [str(status.getPath().getName()) for status in files.listStatus(location)]


def text_of(sc: SparkContext, path: str) -> str:
    """A small file as a whole."""
    files, location = located(sc, path)
    stream = files.open(location)
    try:
        return str(sc._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
    finally:
        stream.close()


def cause(error: BaseException) -> str:
    """What an exception, Java's or Python's, comes from, in a line of its own words."""
    cause = getattr(error, "java_exception", None)
    if cause is None:
        return (str(error).strip() or repr(error)).splitlines()[0]
    while cause.getCause() is not None:
        cause = cause.getCause()
    name = cause.getClass().getSimpleName()
    return f"{name}: {cause.getMessage()}".split("\n")[0].rstrip(".")
