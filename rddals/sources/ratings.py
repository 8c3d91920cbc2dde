"""Ratings that Spark reads from files, and the location of faulty lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from rddals.blocks.column_names import ROLES
from rddals.blocks.ratings import INT32_MAX, INT32_MIN
from rddals.errors import RatingError, SourceError
from rddals.rdds.failures import summary
from rddals.sources.layout import Layout, complaint
from rddals.sources.paths import plain, quoted

#: Texts in errors of Spark about a file that cannot be read to its end.
_UNREADABLE = re.compile(
    r"FAILED_READ_FILE|CANNOT_READ_FILE|while reading file|EOFException|ZipException|"
    r"FileNotFoundException|java\.io\.IOException"
)


@dataclass(frozen=True)
class Ratings:
    """Ratings in files, of which only the first line has been read.

    In `frame`, with the columns user, product and rating, a line that cannot be parsed is a row of
    nulls, which training rejects; no line is dropped. `faulty` has the invalid rows: columns file
    and line, or file and values for Parquet, whose `layout` is None.
    """

    paths: tuple[str, ...]
    description: str
    frame: DataFrame
    faulty: DataFrame
    layout: Layout | None

    @property
    def name(self) -> str:
        """The paths, abbreviated for messages."""
        return quoted(self.paths)

    @contextmanager
    def locating_faults(self) -> Iterator[None]:
        """Replace an error that these ratings cause by a `SourceError` that names the line.

        The search for the line reads the files again, after a failure only.
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
                return f"{self.name} contains no ratings" if self.frame.isEmpty() else None
        except (Py4JJavaError, PySparkException) as error:
            return f"{self.name} cannot be read to its end: {summary(error)}; is it complete?"
        file = plain(unquote(row["file"]), self.paths)
        if self.layout is None:
            values = tuple(row[role] for role in ROLES)
            return f"{file}: {complaint(values)}; the row is {values}"
        line = row["line"]
        number = _line_number(self.faulty.sparkSession, file, line)
        place = file if number is None else f"{file}, line {number}"
        quoted_line = repr(line if len(line) <= 80 else line[:77] + "...")
        return f"{place}: {self.layout.complaint(line)}; the line is {quoted_line}"


def named(values: Sequence[Column]) -> list[Column]:
    """Name the columns of user, product and rating."""
    return [
        value.alias(name) for value, name in zip(values, ("user", "product", "rating"), strict=True)
    ]


def is_faulty() -> Column:
    """Return a condition, never null, that a row is not a valid rating."""
    rating = F.col("rating").cast("float")
    faulty = rating.isNull() | F.isnan(rating) | (F.abs(rating) == float("inf"))
    for name in ("user", "product"):
        id_ = F.col(name)
        faulty = faulty | id_.isNull() | ~id_.between(INT32_MIN, INT32_MAX)
        faulty = faulty | (id_ != F.floor(id_))
    return faulty


def _line_number(spark: SparkSession, file: str, line: str) -> int | None:
    """Return the number of a line, from 1; None if it is not found."""
    try:
        numbered = spark.sparkContext.textFile(file).zipWithIndex()
        matches: list[Any] = numbered.filter(partial(_is_line, line)).take(1)
    except (Py4JJavaError, PySparkException):
        return None
    return matches[0][1] + 1 if matches else None


def _is_line(line: str, numbered: tuple[str, int]) -> bool:
    return numbered[0] == line
