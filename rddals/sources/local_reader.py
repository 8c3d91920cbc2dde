"""Read ratings from local files without Spark, whose start takes longer than the reading.

Only files that Arrow and Spark read alike are read here. All others are left to Spark, which also
names faulty lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rddals.blocks.ratings import RatingBlock
from rddals.errors import RatingError, SourceError
from rddals.planning.statistics import cores
from rddals.sources.columns import pick_columns
from rddals.sources.layout import Layout, detect
from rddals.sources.parquet import is_parquet
from rddals.sources.published import ratings_inside

#: Maximum bytes that Spark reads in one task, and bytes that it adds per file. Up to this size per
#: core, Spark would create as many blocks as there are cores, which is the default of a plan.
BYTES_PER_CORE, BYTES_PER_FILE = 128 << 20, 4 << 20
#: Paths that Spark treats as patterns, and the names of standard input.
_NOT_A_FILE = re.compile(r"[*?\[\]{}\\]|^-?$|^/dev/")
#: Names of files that Spark ignores, may ignore or cannot open, and formats that differ.
_UNUSUAL_NAME = re.compile(r"^[._]|:|\._COPYING_$|\.(lz4|snappy|deflate)$")
#: Spark accepts neither hexadecimal numbers nor NUL; a quoted field may hide a line break.
_UNUSUAL_TEXT = (b"0x", b"0X", b"\0")
#: Bytes in which the first line is searched.
_MAX_LINE = 1 << 16
#: Maximum size of the uncompressed files in the memory of this process.
MAX_BYTES = 1 << 30
#: Memory of a row read from Parquet.
BYTES_PER_ROW = 24


@dataclass(frozen=True, slots=True)
class LocalFileRatings:
    """Ratings in memory and their files, described as in `rddals.sources.ratings.Ratings`."""

    paths: tuple[str, ...]
    description: str
    block: RatingBlock


def read_local_ratings(
    paths: Sequence[str], columns: Sequence[str] | None = None
) -> LocalFileRatings | None:
    """Read ratings into memory.

    Return None if the files are not local, are too large or cannot be read without a fault, and if
    pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        return None
    if any(map(_NOT_A_FILE.search, paths)):
        return None
    paths = tuple(ratings_inside(path, os.path.exists) for path in paths)
    try:
        files = [file for path in paths for file in _files(Path(path))]
        size = sum(file.stat().st_size + BYTES_PER_FILE for file in files)
        if not files or size > BYTES_PER_CORE * cores():
            return None
        with files[0].open("rb") as stream:
            start = stream.read(4).decode("latin-1")
        read = _from_parquet if is_parquet(paths[0].rstrip("/"), start) else _from_text
        description, tables = read(files, columns)
        block = RatingBlock.concatenate([_block(table) for table in tables])
    except (OSError, EOFError, KeyError, ValueError, pa.ArrowException, SourceError, RatingError):
        return None
    return LocalFileRatings(paths, description, block) if len(block) else None


def _files(path: Path) -> list[Path]:
    """Return a file, or the files of a directory that are not hidden."""
    files = [path]
    if path.is_dir():
        files = [each for each in sorted(path.iterdir()) if not _is_hidden(each.name)]
    if any(_UNUSUAL_NAME.search(file.name) or not file.is_file() for file in files):
        raise SourceError("Spark may read other files")
    return files


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "_SUCCESS"


def _from_parquet(files: Sequence[Path], columns: Sequence[str] | None) -> tuple[str, list[Any]]:
    from pyarrow import parquet

    opened = [parquet.ParquetFile(file) for file in files]
    if sum(file.metadata.num_rows for file in opened) * BYTES_PER_ROW > MAX_BYTES:
        raise SourceError("the files are too large")
    schema = opened[0].schema_arrow
    if not all(file.schema_arrow.equals(schema) for file in opened):
        raise SourceError("the files have different columns")
    names = [schema.names[position] for position in pick_columns(schema.names, columns)]
    tables = [file.read(columns=names).select(names) for file in opened]
    return f"Parquet, columns {', '.join(names)}", tables


def _from_text(files: Sequence[Path], columns: Sequence[str] | None) -> tuple[str, list[Any]]:
    import pyarrow as pa

    name = files[0].name.removesuffix(".gz")
    layouts, tables, free_bytes = [], [], MAX_BYTES
    for file in files:
        with pa.input_stream(file) as stream:
            content = stream.read(free_bytes + 1)
        free_bytes -= len(content)
        if free_bytes < 0:
            raise SourceError("the files are too large")
        line = (content[:_MAX_LINE].splitlines() or [b""])[0]
        layouts.append(detect(line.decode("utf-8-sig"), name, columns))
        unusual = any(text in content for text in _UNUSUAL_TEXT)
        if unusual or b'"' in content[len(line) :] or layouts[-1] != layouts[0]:
            raise SourceError("Spark may read other values")
        tables.append(_parsed(content, layouts[-1]))
    return layouts[0].describe(), tables


def _parsed(content: bytes, layout: Layout) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    # Arrow separates by one character, so '::' adds an empty field between its two colons.
    step = len(layout.separator)
    names = [str(field) for field in range(layout.fields * step - step + 1)]
    users, products, ratings = (names[step * column] for column in layout.columns)
    types = {users: pa.int32(), products: pa.int32(), ratings: pa.float32()}
    empty = {name: pa.null() for position, name in enumerate(names) if position % step}
    table = csv.read_csv(
        pa.py_buffer(content),
        read_options=csv.ReadOptions(column_names=names, skip_rows=int(layout.header is not None)),
        parse_options=csv.ParseOptions(delimiter=layout.separator[0]),
        convert_options=csv.ConvertOptions(
            column_types=types | empty, include_columns=[*types, *empty], null_values=[""]
        ),
    )
    return table.select([users, products, ratings])


def _block(table: Any) -> RatingBlock:
    from pyarrow import types

    users, products, ratings = table.columns
    integer_ids = all(types.is_integer(ids.type) for ids in (users, products))
    kind = ratings.type
    numeric = types.is_integer(kind) or types.is_float32(kind) or types.is_float64(kind)
    if not (integer_ids and numeric) or any(column.null_count for column in table.columns):
        raise RatingError("an id is not an integer, or a rating is not a number")
    return RatingBlock.from_columns(*(column.to_numpy() for column in table.columns))
