"""Files wherever Spark keeps them: this disk, HDFS, a bucket."""

from __future__ import annotations

from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import SparkSession

__all__ = ["exists", "located", "names_in", "qualified", "text_of"]


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


def exists(spark: SparkSession, path: str) -> bool:
    """Whether there is a file or directory; False too where the path is none, as a glob is."""
    try:
        files, location = located(spark.sparkContext, path)
        return bool(files.exists(location))
    except Py4JJavaError:
        return False


def qualified(spark: SparkSession, path: str) -> str:
    """A path with its scheme, from the root."""
    files, location = located(spark.sparkContext, path)
    return str(files.makeQualified(location).toString())
