"""Ratings from files of this machine, without Spark, whose start would take longer than reading.

Only what is beyond doubt is read here; of all else, faulty lines included, Spark decides.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rddals.blocks.ratings import RatingBlock
from rddals.errors import RatingError, SourceError
from rddals.planning.statistics import cores
from rddals.sources.columns import pick_columns
from rddals.sources.layout import PARQUET, PUBLISHED, Layout, detect

__all__ = ["LocalFileRatings", "read_local_ratings"]

#: What Spark reads in one task at most, and what it adds for the opening of a file. With no more
#: than this for every core, Spark would make as many blocks as there are cores, which is what a
#: plan takes for its default.
BYTES_PER_CORE, BYTES_PER_FILE = 128 << 20, 4 << 20
#: What this process is to hold at most, of what is in the files when it is unpacked.
MOST_BYTES = 1 << 30
#: A row of Parquet, in columns here.
BYTES_PER_ROW = 24

#: A path that is more than the name of one file or directory (a glob, a URL), or no file's name.
_PATTERN = re.compile(r"[*?\[\]{}\\:%]|^-?$|^//|^/dev/|^/proc/")
#: 0x10, which Arrow takes for a number and Spark does not; and what Spark takes for a comment.
_DOUBTFUL = (b"0x", b"0X", b"\0")
#: Text that Hadoop would unpack by these names.
_PACKED = (".bz2", ".deflate", ".lz4", ".snappy", ".zst", ".zstd")
#: More of a file is not looked at to find its first line.
_LONG = 1 << 16


@dataclass(frozen=True)
class LocalFileRatings:
    """Ratings, and the files that they are from; as `rddals.sources.faults.Ratings` names these."""

    paths: tuple[str, ...]
    description: str
    block: RatingBlock


class _Doubt(Exception):
    """Spark had better read it."""


def read_local_ratings(
    paths: Sequence[str], columns: Sequence[str] | None = None
) -> LocalFileRatings | None:
    """Read ratings into memory, or leave them to `rddals.sources.readers`.

    Returns
    -------
    FileRatings or None
        None if they are not on this machine, or large, or not to be read without a doubt; and
        without pyarrow.
    """
    try:
        import pyarrow as pa
    except ImportError:
        return None
    unreadable = (OSError, EOFError, ValueError, MemoryError, zlib.error, pa.ArrowException)
    try:
        found = tuple(_published(path) for path in paths)
        files = [file for path in found for file in _files(path)]
        sizes = sum(file.stat().st_size + BYTES_PER_FILE for file in files)
        if not files or sizes > BYTES_PER_CORE * cores():
            return None
        with files[0].open("rb") as first:
            parquet = first.read(4) == b"PAR1"
        read = _from_parquet if parquet else _from_text
        description, blocks = read(files, found[0], columns)
        block = RatingBlock.concatenate(blocks)
    except (_Doubt, SourceError, RatingError, *unreadable):
        return None
    return LocalFileRatings(found, description, block) if len(block) else None


def _published(path: str) -> str:
    """The ratings in a directory of MovieLens as published, else the path itself."""
    for name in (*PUBLISHED, "ratings.csv"):
        inside = f"{path.rstrip('/')}/{name}"
        if not path.endswith(name) and Path(inside).exists():
            return inside
    return path


def _files(path: str) -> list[Path]:
    """A file, or what Spark would read of a directory without any below it."""
    if _PATTERN.search(path):
        raise _Doubt
    place = Path(path)
    files = [place]
    if place.is_dir():
        listed = sorted(place.iterdir())
        files = [file for file in listed if file.name != "_SUCCESS" and file.name[0] != "."]
    for file in files:
        if (
            file.name[0] in "._"
            or not file.is_file()
            or file.name.endswith((*_PACKED, "._COPYING_"))
        ):
            raise _Doubt
    return files


def _from_text(
    files: Sequence[Path], path: str, columns: Sequence[str] | None
) -> tuple[str, list[RatingBlock]]:
    if path.rstrip("/").endswith(PARQUET):
        raise _Doubt
    name = Path(path).name.removesuffix(".gz")
    blocks, found, room = [], None, MOST_BYTES
    for content in _contents(files):
        room -= len(content)
        line = _line(content)
        layout = detect(line.decode(), name, columns)
        quote = content.find(b'"', 0 if layout.header is None else len(line))
        if room < 0 or quote >= 0 or (found or layout) != layout:
            raise _Doubt
        blocks.append(_parsed(content, layout))
        found = layout
    if found is None:
        raise _Doubt
    return found.describe(), blocks


def _contents(files: Sequence[Path]) -> Iterator[bytes]:
    """What is in files that are not empty; a field is what stands between two separators."""
    for file in files:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content: bytes = stream.read(MOST_BYTES + 1)
        # A mark of the byte order is no doubt for Arrow, and a fault for Spark.
        if content.startswith(b"\xef\xbb\xbf") or any(mark in content for mark in _DOUBTFUL):
            raise _Doubt
        if content:
            yield content


def _line(content: bytes) -> bytes:
    """The first line, without its end."""
    lines = content[:_LONG].splitlines()
    if len(lines) == 1 and len(content) > _LONG:
        raise _Doubt
    return lines[0]


def _parsed(content: bytes, layout: Layout) -> RatingBlock:
    import pyarrow as pa
    from pyarrow import csv

    # Arrow separates by one character: between two colons there is an empty field.
    step = len(layout.separator)
    names = [str(field) for field in range(layout.fields * step - step + 1)]
    types = {names[step * column]: pa.int32() for column in layout.columns[:2]}
    types |= {names[step * layout.columns[2]]: pa.float32()}
    types |= {name: pa.null() for place, name in enumerate(names) if place % step}
    table = csv.read_csv(
        pa.py_buffer(content),
        read_options=csv.ReadOptions(column_names=names, skip_rows=int(layout.header is not None)),
        parse_options=csv.ParseOptions(delimiter=layout.separator[0], quote_char=False),
        convert_options=csv.ConvertOptions(
            column_types=types, include_columns=list(types), null_values=[""]
        ),
    )
    return _block([table[names[step * column]] for column in layout.columns])


def _from_parquet(
    files: Sequence[Path], path: str, columns: Sequence[str] | None
) -> tuple[str, list[RatingBlock]]:
    from pyarrow import parquet

    if any(file.suffix == ".gz" for file in files):
        raise _Doubt
    opened = [parquet.ParquetFile(file) for file in files]
    schema = opened[0].schema_arrow
    if sum(file.metadata.num_rows for file in opened) * BYTES_PER_ROW > MOST_BYTES:
        raise _Doubt
    if not all(
        file.schema_arrow.equals(schema) and _is_plain(file.schema_arrow) for file in opened
    ):
        raise _Doubt
    names = [schema.names[place] for place in pick_columns(schema.names, columns)]
    blocks = []
    for file in opened:
        table = file.read(columns=names)
        blocks.append(_block([table[name] for name in names]))
    return f"Parquet, columns {', '.join(names)}", blocks


def _is_plain(schema: Any) -> bool:
    """Whether Spark reads all columns of a Parquet file, and as Arrow does."""
    from pyarrow import types

    plain = [types.is_boolean, types.is_integer, types.is_float32, types.is_float64]
    plain += [types.is_decimal, types.is_string, types.is_binary, types.is_date32]
    distinct = {name.lower() for name in schema.names}
    # What Spark wrote names the columns a second time.
    written = (schema.metadata or {}).get(b"org.apache.spark.sql.parquet.row.metadata")
    again = written is None or [f["name"] for f in json.loads(written)["fields"]] == schema.names
    return (
        again
        and len(distinct) == len(schema.names)
        and all(
            any(is_one(column.type) for is_one in plain)
            or (types.is_timestamp(column.type) and column.type.unit in ("ms", "us"))
            for column in schema
        )
    )


def _block(columns: Sequence[Any]) -> RatingBlock:
    from pyarrow import types

    users, products, ratings = columns
    whole = all(types.is_integer(ids.type) for ids in (users, products))
    number = types.is_integer(ratings.type) or types.is_floating(ratings.type)
    if not (whole and number) or any(column.null_count for column in columns):
        raise _Doubt
    return RatingBlock.from_columns(*(column.to_numpy() for column in columns))
