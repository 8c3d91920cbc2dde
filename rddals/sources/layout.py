"""How a text file of ratings is laid out, told from its name and its first line.

Nothing here knows of Spark.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rddals.blocks.ratings import INT32_MAX, INT32_MIN
from rddals.errors import SourceError
from rddals.sources.columns import ROLES, pick_columns

__all__ = ["PARQUET", "PUBLISHED", "Layout", "complaint", "detect", "split_line"]

#: Published under these names with these separators, and without a header.
PUBLISHED = {"u.data": ("\t", 4), "ratings.dat": ("::", 4)}

#: What names of Parquet end in.
PARQUET = (".parquet", ".parq")

SEPARATORS = {"::": "'::' separated", "\t": "tab separated", ",": "comma separated"}
SEPARATORS |= {";": "semicolon separated", "|": "'|' separated"}

#: First bytes of what is not text.
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
    """Where the three values of a rating stand in a line.

    Attributes
    ----------
    separator : str
    fields : int
        How many a line has.
    columns : tuple of int
        Positions of user, item and rating.
    header : str or None
        The header line, as it stands in the file.
    names : tuple of str
        What the header calls user, item and rating; empty without one.
    """

    separator: str
    fields: int
    columns: tuple[int, int, int]
    header: str | None = None
    names: tuple[str, ...] = ()

    def describe(self) -> str:
        """The layout in a few words."""
        names = f"columns {', '.join(self.names)}" if self.names else "no header"
        return f"{SEPARATORS[self.separator]}, {names}"

    def complaint(self, line: str) -> str:
        """What is wrong with a line that could not be read."""
        values = split_line(line, self.separator)
        if len(values) != self.fields:
            return (
                f"{_count(len(values), 'field')} where {self.fields} are expected "
                f"({SEPARATORS[self.separator]}); repair or remove the line"
            )
        return complaint([values[column] for column in self.columns])


def complaint(values: Sequence[object]) -> str:
    """What is wrong with the user, item and rating that could not be read."""
    for role, value in zip(ROLES, values, strict=True):
        text = "" if value is None else str(value).strip()
        if not text:
            return f"no {role}; every rating needs one"
        if role == "rating":
            try:
                number = float(text)
            except ValueError:
                return f"rating {text!r} is not a number; repair or remove it"
            if not math.isfinite(number) or abs(number) > 3.4028235e38:
                return f"rating {text!r} is not a finite 32-bit float; repair or remove it"
            continue
        try:
            id_ = int(text)
        except ValueError:
            return f"{role} {text!r} is not an integer; replace other keys by integers first"
        if not INT32_MIN <= id_ <= INT32_MAX:
            return f"{role} {id_} does not fit 32 bits; replace such ids by smaller integers first"
    return "it cannot be read as user, item and rating; repair or remove it"


def detect(line: str, name: str = "", columns: Sequence[str] | None = None) -> Layout:
    """The layout of a file, from its first line that is not blank.

    Parameters
    ----------
    line : str
    name : str
        The file's name without folders or ``.gz``.
    columns : sequence of str, optional
        What the header calls user, item and rating, instead of the usual names.

    Raises
    ------
    SourceError
        If it is no text, or neither a rating nor a header that names all three columns.
    """
    _check_text(line)
    line = line.rstrip("\r\n")
    if name in PUBLISHED and not columns:
        separator, fields = PUBLISHED[name]
        return Layout(separator, fields, (0, 1, 2))
    separator = _separator(line)
    values = split_line(line, separator)
    # A name is never a number: a first line that holds one is a rating, if perhaps a broken one.
    if any(_is_number(value) for value in values):
        if columns:
            raise SourceError(
                f"--columns names columns, but the first line is no header: {_short(line)}; "
                "without a header the columns are user, item, rating, in this order"
            )
        return Layout(separator, len(values), (0, 1, 2))
    picked = pick_columns(values, columns)
    return Layout(separator, len(values), picked, line, tuple(values[i] for i in picked))


def split_line(line: str, separator: str) -> list[str]:
    """The fields of a line; quotes protect separators of one character."""
    if len(separator) > 1:
        return [field.strip() for field in line.split(separator)]
    return [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]


def _separator(line: str) -> str:
    for separator in SEPARATORS:
        if len(split_line(line, separator)) >= 3:
            return separator
    raise SourceError(
        f"the first line is neither a rating nor a header: {_short(line)}; fields are separated "
        "by tabs, '::', commas, semicolons or '|', and there are three at least"
    )


def _check_text(line: str) -> None:
    for magic, what in MAGIC.items():
        if line.startswith(magic):
            raise SourceError(f"it is {what}")
    if any(char == "\ufffd" or (char < " " and char not in "\t\r") for char in line):
        raise SourceError(
            f"it is not text, but starts with {line[:16]!a}; "
            "ratings come as delimited text, gzipped or not, or as Parquet"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")
