"""Detect the layout of a text file of ratings from its name and first line, without Spark."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rddals.blocks.column_names import ROLES, find_columns
from rddals.blocks.ratings import INT32_MAX, INT32_MIN, whole_number
from rddals.errors import SourceError
from rddals.sources.columns import pick_columns
from rddals.sources.published import PUBLISHED

SEPARATORS = {"::": "'::' separated", "\t": "tab separated", ",": "comma separated"}
SEPARATORS |= {";": "semicolon separated", "|": "'|' separated"}

#: First bytes of files that are not delimited text.
MAGIC = {
    "PK\x03\x04": "a zip archive; unpack it first",
    "\x1f": "gzip data; give it a name that ends in .gz",
    "BZh": "bzip2 data; give it a name that ends in .bz2",
    "ORC": "an ORC file; convert it to Parquet",
    "{": "JSON; convert it to CSV or Parquet",
    "[": "JSON; convert it to CSV or Parquet",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Layout of a line: separator, and positions of the three values of a rating.

    Attributes
    ----------
    separator : str
    fields : int
        Number of fields per line.
    columns : tuple of int
        Positions of user, item and rating.
    header : str or None
        Header line, verbatim. None without a header.
    names : tuple of str
        Header names of user, item and rating; empty without a header.
    """

    separator: str
    fields: int
    columns: tuple[int, int, int]
    header: str | None = None
    names: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the layout in a few words."""
        names = f"columns {', '.join(self.names)}" if self.names else "no header"
        return f"{_separated(self.separator)}, {names}"

    def complaint(self, line: str) -> str:
        """Return what is wrong with a line that could not be parsed."""
        values = split_line(line, self.separator)
        if len(values) != self.fields:
            return (
                f"{_count(len(values), 'field')} where {self.fields} are expected "
                f"({_separated(self.separator)}); repair or remove the line"
            )
        return complaint([values[column] for column in self.columns])


def complaint(values: Sequence[object]) -> str:
    """Return what is wrong with a user, item and rating that could not be parsed."""
    for role, value in zip(ROLES, values, strict=True):
        text = "" if value is None else str(value).strip()
        if not text:
            return f"no {role}; every rating needs one, add it or remove the rating"
        if role == "rating":
            try:
                number = float(text)
            except ValueError:
                return f"rating {text!r} is not a number; repair or remove it"
            if not math.isfinite(number) or abs(number) > 3.4028235e38:
                return f"rating {text!r} is not a finite 32-bit float; repair or remove it"
            continue
        try:
            id_ = whole_number(text)
        except (ValueError, OverflowError):
            return f"{role} {text!r} is not an integer; convert other keys with rddals.indexer"
        if not INT32_MIN <= id_ <= INT32_MAX:
            return f"{role} {id_} does not fit 32 bits; convert such ids with rddals.indexer"
    return "not readable as user, item and rating; repair or remove it"


def detect(line: str, name: str = "", columns: Sequence[str] | None = None) -> Layout:
    """Detect the layout of a file from its first line that is not blank.

    `name` is that of the file without folders and ``.gz``; `columns` are those of `pick_columns`.
    A line that is neither a rating nor a header with all three columns raises `SourceError`.
    """
    _check_text(line)
    line = line.rstrip("\r\n")
    if name in PUBLISHED and not columns:
        separator, fields = PUBLISHED[name]
        counts = {other: len(split_line(line, other)) for other in SEPARATORS}
        # A line that has no other layout either is broken, and will be named.
        is_published = counts[separator] == fields and not _is_header(split_line(line, separator))
        if is_published or max(counts.values()) < 3:
            return Layout(separator, fields, (0, 1, 2))
    separator = _separator(line)
    values = split_line(line, separator)
    # Any other line with a number is a rating, valid or not: few column names are numbers.
    if not _is_header(values) and any(_is_number(value) for value in values):
        if columns:
            raise SourceError(
                f"--columns needs a header, but the first line is not a header: {_short(line)}; "
                "omit --columns if the first fields are user, item, rating"
            )
        return Layout(separator, len(values), (0, 1, 2))
    positions = pick_columns(values, columns)
    return Layout(separator, len(values), positions, line, tuple(values[i] for i in positions))


def split_line(line: str, separator: str) -> list[str]:
    """Split a line into fields; quotes protect separators of one character."""
    if len(separator) > 1:
        return [field.strip() for field in line.split(separator)]
    return [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]


def _separated(separator: str) -> str:
    if separator in SEPARATORS:
        return SEPARATORS[separator]
    return f"{SEPARATORS[separator[0]]} ({len(separator)} together)"


def _separator(line: str) -> str:
    for separator in SEPARATORS:
        if len(split_line(line, separator)) >= 3:
            # Some files repeat each separator, as Jester's do.
            runs = {len(run) for run in re.findall(f"{re.escape(separator)}+", line)}
            return separator * runs.pop() if len(separator) == len(runs) == 1 else separator
    raise SourceError(
        f"the first line is neither a rating nor a header: {_short(line)}; separate three or more "
        "fields by tabs, '::', commas, semicolons or '|'"
    )


def _check_text(line: str) -> None:
    for magic, format_and_remedy in MAGIC.items():
        if line.startswith(magic):
            raise SourceError(f"the file is {format_and_remedy}")
    if any(char == "\ufffd" or (char < " " and char not in "\t\r") for char in line):
        raise SourceError(
            f"the file is not text, it starts with {line[:16]!a}; "
            "pass delimited text, gzipped or not, or Parquet"
        )


def _is_header(values: Sequence[str]) -> bool:
    return None not in find_columns(values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")
