"""Read ratings from local files without Spark, whose start takes longer than the reading.

Only files that Spark reads with the same result are read here. All others, such as files with
faulty lines, are left to Spark.
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

#: Maximum bytes that Spark reads in one task, and bytes that it adds per file. Up to this size per
#: core, Spark would create as many blocks as there are cores, which is the default of a plan.
BYTES_PER_CORE, BYTES_PER_FILE = 128 << 20, 4 << 20
#: Maximum size of the uncompressed files in the memory of this process.
MAX_BYTES = 1 << 30
#: Memory of a row read from Parquet.
BYTES_PER_ROW = 24

#: Paths that are not the name of one file or directory: globs, URLs, devices.
_PATTERN = re.compile(r"[*?\[\]{}\\:%]|^-?$|^//|^/dev/|^/proc/")
#: Arrow parses 0x10 as a number and Spark does not; Spark treats NUL as the start of a comment.
_AMBIGUOUS_BYTES = (b"0x", b"0X", b"\0")
#: Suffixes of files that Hadoop decompresses.
_COMPRESSED_SUFFIXES = (".bz2", ".deflate", ".lz4", ".snappy", ".zst", ".zstd")
#: Maximum length of a first line, in bytes.
_MAX_FIRST_LINE = 1 << 16


@dataclass(frozen=True)
class LocalFileRatings:
    """Ratings in memory and their files, described as in `rddals.sources.faults.Ratings`."""

    paths: tuple[str, ...]
    description: str
    block: RatingBlock


class _NeedsSpark(Exception):
    """The files must be read by Spark."""


def read_local_ratings(
    paths: Sequence[str], columns: Sequence[str] | None = None
) -> LocalFileRatings | None:
    """Read ratings into memory, if Spark would read the same.

    Returns
    -------
    LocalFileRatings or None
        None if the files are not local, too large, or might be read differently by Spark, and if
        pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        return None
    unreadable = (OSError, EOFError, ValueError, MemoryError, zlib.error, pa.ArrowException)
    try:
        paths = tuple(_published(path) for path in paths)
        files = [file for path in paths for file in _files(path)]
        size = sum(file.stat().st_size + BYTES_PER_FILE for file in files)
        if not files or size > BYTES_PER_CORE * cores():
            return None
        with files[0].open("rb") as first:
            is_parquet = first.read(4) == b"PAR1"
        read = _from_parquet if is_parquet else _from_text
        description, blocks = read(files, paths[0], columns)
        block = RatingBlock.concatenate(blocks)
    except (_NeedsSpark, SourceError, RatingError, *unreadable):
        return None
    return LocalFileRatings(paths, description, block) if len(block) else None


def _published(path: str) -> str:
    """Return the path of the ratings in a MovieLens directory, else the path itself."""
    for name in (*PUBLISHED, "ratings.csv"):
        inside = f"{path.rstrip('/')}/{name}"
        if not path.endswith(name) and Path(inside).exists():
            return inside
    return path


def _files(path: str) -> list[Path]:
    """Return a file, or the files that Spark reads in a directory without subdirectories."""
    if _PATTERN.search(path):
        raise _NeedsSpark
    files = [Path(path)]
    if files[0].is_dir():
        entries = sorted(files[0].iterdir())
        files = [file for file in entries if file.name != "_SUCCESS" and file.name[0] != "."]
    for file in files:
        if (
            file.name[0] in "._"
            or not file.is_file()
            or file.name.endswith((*_COMPRESSED_SUFFIXES, "._COPYING_"))
        ):
            raise _NeedsSpark
    return files


def _from_text(
    files: Sequence[Path], path: str, columns: Sequence[str] | None
) -> tuple[str, list[RatingBlock]]:
    if path.rstrip("/").endswith(PARQUET):
        raise _NeedsSpark
    name = Path(path).name.removesuffix(".gz")
    blocks, first_layout, free_bytes = [], None, MAX_BYTES
    for content in _contents(files):
        free_bytes -= len(content)
        line = _first_line(content)
        layout = detect(line.decode(), name, columns)
        quote = content.find(b'"', 0 if layout.header is None else len(line))
        if free_bytes < 0 or quote >= 0 or (first_layout or layout) != layout:
            raise _NeedsSpark
        blocks.append(_parsed(content, layout))
        first_layout = layout
    if first_layout is None:
        raise _NeedsSpark
    return first_layout.describe(), blocks


def _contents(files: Sequence[Path]) -> Iterator[bytes]:
    """Yield the uncompressed content of each file that is not empty."""
    for file in files:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content: bytes = stream.read(MAX_BYTES + 1)
        # Arrow skips a byte order mark; Spark reads it as part of the first field.
        if content.startswith(b"\xef\xbb\xbf") or any(
            ambiguous in content for ambiguous in _AMBIGUOUS_BYTES
        ):
            raise _NeedsSpark
        if content:
            yield content


def _first_line(content: bytes) -> bytes:
    """Return the first line, without its line break."""
    lines = content[:_MAX_FIRST_LINE].splitlines()
    if len(lines) == 1 and len(content) > _MAX_FIRST_LINE:
        raise _NeedsSpark
    return lines[0]


def _parsed(content: bytes, layout: Layout) -> RatingBlock:
    import pyarrow as pa
    from pyarrow import csv

    # Arrow separates by one character, so '::' adds an empty field between its two colons.
    step = len(layout.separator)
    names = [str(field) for field in range(layout.fields * step - step + 1)]
    types = {names[step * column]: pa.int32() for column in layout.columns[:2]}
    types |= {names[step * layout.columns[2]]: pa.float32()}
    types |= {name: pa.null() for position, name in enumerate(names) if position % step}
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
        raise _NeedsSpark
    opened = [parquet.ParquetFile(file) for file in files]
    schema = opened[0].schema_arrow
    if sum(file.metadata.num_rows for file in opened) * BYTES_PER_ROW > MAX_BYTES:
        raise _NeedsSpark
    if not all(
        file.schema_arrow.equals(schema) and _is_plain(file.schema_arrow) for file in opened
    ):
        raise _NeedsSpark
    names = [schema.names[position] for position in pick_columns(schema.names, columns)]
    blocks = []
    for file in opened:
        table = file.read(columns=names)
        blocks.append(_block([table[name] for name in names]))
    return f"Parquet, columns {', '.join(names)}", blocks


def _is_plain(schema: Any) -> bool:
    """Return whether Spark reads all columns of a Parquet file as Arrow does."""
    from pyarrow import types

    type_checks = [types.is_boolean, types.is_integer, types.is_float32, types.is_float64]
    type_checks += [types.is_decimal, types.is_string, types.is_binary, types.is_date32]
    distinct_names = {name.lower() for name in schema.names}
    # Files written by Spark list the columns a second time, in the metadata.
    spark_schema = (schema.metadata or {}).get(b"org.apache.spark.sql.parquet.row.metadata")
    same_names = (
        spark_schema is None
        or [field["name"] for field in json.loads(spark_schema)["fields"]] == schema.names
    )
    return (
        same_names
        and len(distinct_names) == len(schema.names)
        and all(
            any(check(column.type) for check in type_checks)
            or (types.is_timestamp(column.type) and column.type.unit in ("ms", "us"))
            for column in schema
        )
    )


def _block(columns: Sequence[Any]) -> RatingBlock:
    from pyarrow import types

    users, products, ratings = columns
    integer_ids = all(types.is_integer(ids.type) for ids in (users, products))
    numeric = types.is_integer(ratings.type) or types.is_floating(ratings.type)
    if not (integer_ids and numeric) or any(column.null_count for column in columns):
        raise _NeedsSpark
    return RatingBlock.from_columns(*(column.to_numpy() for column in columns))
