"""Ratings that Spark reads from files, and what is wrong with them if training refuses them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from rddals.errors import RatingError, SourceError
from rddals.rdds.failures import summary
from rddals.sources.columns import ROLES
from rddals.sources.layout import Layout, complaint
from rddals.sources.paths import plain, quoted

__all__ = ["Ratings"]

#: What Spark says, in one wording or another, when it cannot read a file to its end.
_UNREADABLE = re.compile(
    r"FAILED_READ_FILE|CANNOT_READ_FILE|while reading file|EOFException|ZipException|"
    r"FileNotFoundException|java\.io\.IOException"
)


@dataclass(frozen=True)
class Ratings:
    """Ratings in files; nothing but their first line has been read.

    Attributes
    ----------
    paths : tuple of str
    description : str
        Of the format.
    frame : DataFrame
        Columns user, product, rating. A line that cannot be read is a row of nulls here, which
        training refuses: none is dropped.
    faulty : DataFrame
        Columns file and line (or, for Parquet, the values): the rows that cannot be trained on.
    layout : Layout or None
        None for Parquet.
    """

    paths: tuple[str, ...]
    description: str
    frame: DataFrame
    faulty: DataFrame
    layout: Layout | None

    @property
    def name(self) -> str:
        """The paths, as a message quotes them."""
        return quoted(self.paths)

    @contextmanager
    def locating_faults(self) -> Iterator[None]:
        """Let what fails because of these ratings fail as an `SourceError` that names the line.

        Looking for the line takes a pass of its own over the files, after the failure only.
        """
        try:
            yield
        except (RatingError, Py4JJavaError, PySparkException) as error:
            if not isinstance(error, RatingError) and not _UNREADABLE.search(str(error)):
                raise
            fault = self._fault()
            if fault is None:
                raise
            raise SourceError(fault) from error

    def _fault(self) -> str | None:
        try:
            row = self.faulty.first()
            if row is None:
                return f"{self.name} holds no rating" if self.frame.isEmpty() else None
        except (Py4JJavaError, PySparkException) as error:
            return f"{self.name} cannot be read to its end: {summary(error)}; is it complete?"
        file = plain(unquote(row["file"]))
        if self.layout is None:
            values = tuple(row[role] for role in ROLES)
            return f"{file}: {complaint(values)}; the row is {values}"
        line = row["line"]
        number = _line_number(self.faulty.sparkSession, file, line)
        where = file if number is None else f"{file}, line {number}"
        shown = repr(line if len(line) <= 80 else line[:77] + "...")
        return f"{where}: {self.layout.complaint(line)}; the line is {shown}"


def _line_number(spark: SparkSession, file: str, line: str) -> int | None:
    """The number of a line, from 1; None if the file cannot be searched for it."""
    try:
        numbered = spark.sparkContext.textFile(file).zipWithIndex()
        found: list[Any] = numbered.filter(partial(_is_line, line)).take(1)
    except (Py4JJavaError, PySparkException):
        return None
    return found[0][1] + 1 if found else None


def _is_line(line: str, numbered: tuple[str, int]) -> bool:
    return numbered[0] == line
