"""Ratings from files of this machine, without Spark, whose start would take longer than reading.

Only what is beyond doubt is read here; of all else, faulty lines included, Spark decides.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rddals.blocks.ratings import RatingBlock
from rddals.cli.columns import pick_columns
from rddals.cli.failures import InputError
from rddals.cli.layout import PARQUET, PUBLISHED, Layout, detect
from rddals.counting import cores
from rddals.errors import RatingError

__all__ = ["FileRatings", "hold_ratings"]

#: What Spark reads in one task at most. With no more than this for every core, Spark would make
#: as many blocks as there are cores, which is what a plan takes for its default.
BYTES_PER_CORE = 128 << 20
#: How much larger gzipped text becomes.
INFLATION = 4

#: A path that is more than the name of one file or directory: a glob, a URL.
_PATTERN = re.compile(r"[*?\[\]{}\\:%]")


@dataclass(frozen=True)
class FileRatings:
    """Ratings, and the files that they are from; as `rddals.cli.ratings.Ratings` names these."""

    paths: tuple[str, ...]
    description: str
    block: RatingBlock


class _Doubt(Exception):
    """Spark had better read it."""


def hold_ratings(paths: Sequence[str], columns: Sequence[str] | None = None) -> FileRatings | None:
    """Read ratings into memory, or leave them to `rddals.cli.readers`.

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
    unreadable = (OSError, EOFError, zlib.error, pa.ArrowException)
    try:
        found = tuple(_published(path) for path in paths)
        files = [file for path in found for file in _files(path)]
        sizes = [file.stat().st_size * (INFLATION if _zipped(file) else 1) for file in files]
        if not files or sum(sizes) > BYTES_PER_CORE * cores():
            return None
        with files[0].open("rb") as first:
            parquet = first.read(4) == b"PAR1"
        description, blocks = (_from_parquet if parquet else _from_text)(files, found[0], columns)
        block = RatingBlock.concatenate(blocks)
    except (_Doubt, InputError, RatingError, UnicodeDecodeError, *unreadable):
        return None
    return FileRatings(found, description, block) if len(block) else None


def _published(path: str) -> str:
    """The ratings in a directory of MovieLens as published, else the path itself."""
    for name in (*PUBLISHED, "ratings.csv"):
        inside = f"{path.rstrip('/')}/{name}"
        if not path.endswith(name) and Path(inside).exists():
            return inside
    return path


def _files(path: str) -> list[Path]:
    """A file, or what Spark would read of a directory without any below it."""
    if not path or _PATTERN.search(path):
        raise _Doubt
    place = Path(path)
    files = [place]
    if place.is_dir():
        files = [file for file in sorted(place.iterdir()) if file.name[0] not in "._"]
    if not all(file.is_file() and file.name[0] not in "._" for file in files):
        raise _Doubt
    return files


def _zipped(file: Path) -> bool:
    return file.suffix == ".gz"


def _from_text(
    files: Sequence[Path], path: str, columns: Sequence[str] | None
) -> tuple[str, list[RatingBlock]]:
    contents = [content for file in files if (content := _content(file))]
    if not contents or path.rstrip("/").endswith(PARQUET):
        raise _Doubt
    layout = detect(_line(contents[0]), Path(path).name.removesuffix(".gz"), columns)
    return layout.describe(), [_parsed(content, layout) for content in contents]


def _content(file: Path) -> bytes:
    """All of a file, in which a field is what stands between two separators."""
    with gzip.open(file) if _zipped(file) else file.open("rb") as stream:
        content: bytes = stream.read()
    # Quotes; 0x10, which Arrow takes for a number and Spark does not; a mark of the byte order.
    if re.search(rb'"|0[xX]|\A\xef\xbb\xbf', content):
        raise _Doubt
    return content


def _line(content: bytes) -> str:
    return content[: 1 << 16].splitlines()[0].decode()


def _parsed(content: bytes, layout: Layout) -> RatingBlock:
    import pyarrow as pa
    from pyarrow import csv

    header = layout.header is not None
    if header and _line(content) != layout.header:
        raise _Doubt
    # Arrow separates by one character: between two colons there is an empty field.
    step = len(layout.separator)
    names = [str(field) for field in range(layout.fields * step - step + 1)]
    types = {names[step * column]: pa.int32() for column in layout.columns[:2]}
    types |= {names[step * layout.columns[2]]: pa.float32()}
    types |= {name: pa.null() for place, name in enumerate(names) if place % step}
    table = csv.read_csv(
        pa.py_buffer(content),
        read_options=csv.ReadOptions(column_names=names, skip_rows=int(header)),
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

    read = [parquet.ParquetFile(file) for file in files]
    present = read[0].schema_arrow.names
    names = [present[place] for place in pick_columns(present, columns)]
    tables = [file.read(columns=names) for file in read]
    if any(table.num_columns != 3 for table in tables):
        raise _Doubt
    blocks = [_block([table[name] for name in names]) for table in tables]
    return f"Parquet, columns {', '.join(names)}", blocks


def _block(columns: Sequence[Any]) -> RatingBlock:
    import pyarrow as pa

    users, products, ratings = columns
    whole = all(pa.types.is_integer(ids.type) for ids in (users, products))
    number = pa.types.is_integer(ratings.type) or pa.types.is_floating(ratings.type)
    if not (whole and number) or any(column.null_count for column in columns):
        raise _Doubt
    return RatingBlock.from_columns(*(column.to_numpy() for column in columns))
