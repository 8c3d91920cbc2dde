"""Files on the file systems that Spark reaches: local disks, HDFS, object stores."""

from __future__ import annotations

from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import SparkSession


def located(sc: SparkContext, path: str) -> tuple[Any, Any]:
    """Return the Hadoop file system of a path, and its Hadoop ``Path``."""
    location = sc._jvm.org.apache.hadoop.fs.Path(path)
    return location.getFileSystem(sc._jsc.hadoopConfiguration()), location


def names_in(sc: SparkContext, path: str) -> list[str]:
    """Return the names of the files in a directory, or an empty list if there is none.

    Hadoop raises for a directory that does not exist, so this checks first.
    """
    files, location = located(sc, path)
    if not files.exists(location):
        return []
    return [str(status.getPath().getName()) for status in files.listStatus(location)]


def text_of(sc: SparkContext, path: str) -> str:
    """Return the content of a small file."""
    files, location = located(sc, path)
    stream = files.open(location)
    try:
        return str(sc._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
    finally:
        stream.close()


def write_text(sc: SparkContext, path: str, text: str) -> None:
    """Write a small file, replacing an older one."""
    files, location = located(sc, path)
    stream = files.create(location, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()


def exists(spark: SparkSession, path: str) -> bool:
    """Return whether a path is an existing file or directory.

    Hadoop raises for a string that it cannot parse as a path, as it may be a glob: False then too.
    """
    try:
        files, location = located(spark.sparkContext, path)
        return bool(files.exists(location))
    except Py4JJavaError:
        return False


def qualified(spark: SparkSession, path: str) -> str:
    """Return the absolute path with its scheme."""
    files, location = located(spark.sparkContext, path)
    return str(files.makeQualified(location).toString())
