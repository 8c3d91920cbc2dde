"""Read ratings from files with Spark: delimited text or Parquet, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from rddals.errors import SourceError
from rddals.rdds.failures import summary
from rddals.rdds.hadoop import exists
from rddals.sources.layout import Layout, detect
from rddals.sources.parquet import is_parquet, read_parquet
from rddals.sources.paths import escaped, first_line, plain, quoted
from rddals.sources.published import ratings_inside
from rddals.sources.ratings import Ratings
from rddals.sources.text import read_text

#: Most files whose first lines are compared.
MAX_FILES = 1000


def read_ratings(
    spark: SparkSession, paths: Sequence[str], columns: Sequence[str] | None = None
) -> Ratings:
    """Read files, directories or globs of one format, detected from the name and first line.

    In a published MovieLens directory, only the ratings are read. A path that does not exist, is
    empty, or is not a file of ratings raises `SourceError`.
    """
    for path in paths:
        if path in ("-", "/dev/stdin"):
            raise SourceError(f"{path}: Spark cannot read standard input; pass a file")
    paths = tuple(ratings_inside(path, partial(exists, spark)) for path in paths)
    name = paths[0].rstrip("/").rpartition("/")[2].removesuffix(".gz")
    with _naming_files(paths):
        if is_parquet(name):
            return read_parquet(spark, paths, columns)
        files = [unquote(file) for file in spark.read.text(list(paths)).inputFiles()]
    layouts = _layouts(spark, files[:MAX_FILES], columns)
    if not layouts:
        hidden = name.startswith(("_", "."))
        remedy = "; Spark ignores names that begin with _ or ." if hidden else ""
        raise SourceError(
            f"{quoted(paths)}: the file is empty; pass one with a rating per line{remedy}"
        )
    return _read(spark, paths, columns, layouts, "give all files the same header and columns")


def read_batch(
    spark: SparkSession,
    files: Sequence[str],
    columns: Sequence[str] | None = None,
    form: str | None = None,
) -> Ratings | None:
    """Read the files of one batch like `read_ratings`; return None if all are empty.

    `files` are paths without patterns; `form` is "csv", "parquet", or None to detect it. A file
    that is missing, has no ratings, or has other columns than the rest raises `SourceError`.
    """
    for file in files:
        if not exists(spark, file):
            raise SourceError(
                f"{plain(file)} is missing and has not been learned; restore it, or put an empty "
                "file in its place"
            )
    layouts = _layouts(spark, files, columns, form)
    if not layouts:
        return None
    return _read(
        spark,
        tuple(map(escaped, layouts)),
        columns,
        layouts,
        "files of one batch need the same columns in the same order: edit them in place, or start "
        "a new stream with --files-per-batch 1",
    )


def _layouts(
    spark: SparkSession,
    files: Sequence[str],
    columns: Sequence[str] | None,
    form: str | None = None,
) -> dict[str, Layout | None]:
    """Return the layout of each file that is not empty; None for Parquet."""
    layouts: dict[str, Layout | None] = {}
    for file in files:
        line = first_line(spark, file)
        if line is None:
            continue
        name = file.rpartition("/")[2].removesuffix(".gz")
        if form == "parquet" or (form is None and is_parquet(name, line)):
            layouts[file] = None
        else:
            with _naming_files((plain(file),)):
                layouts[file] = detect(line, name, columns)
    return layouts


def _read(
    spark: SparkSession,
    paths: tuple[str, ...],
    columns: Sequence[str] | None,
    layouts: dict[str, Layout | None],
    remedy: str,
) -> Ratings:
    """Read files of one layout; if their layouts differ, raise `SourceError` with the remedy."""
    (first, layout), *others = layouts.items()
    for file, other in others:
        if other != layout:
            raise SourceError(
                f"{plain(file)} is {_describe(other)} and {plain(first)} is {_describe(layout)}; "
                f"{remedy}"
            )
    with _naming_files(paths):
        if layout is None:
            return read_parquet(spark, paths, columns)
        return read_text(spark, paths, layout)


def _describe(layout: Layout | None) -> str:
    if layout is None:
        return "Parquet"
    header = f"{layout.fields} fields" if layout.header is None else f"header {layout.header!r}"
    return f"{layout.describe()}, {header}"


@contextmanager
def _naming_files(paths: tuple[str, ...]) -> Iterator[None]:
    """Name the files in errors raised in the block, with a remedy."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{quoted(paths)}: {error}") from None
    except (Py4JJavaError, PySparkException) as error:
        if "PATH_NOT_FOUND" in str(error):
            pattern = "; Spark treats *, ?, [ and { as patterns: escape them with a backslash"
            raise SourceError(
                f"{quoted(paths)}: no such file or directory; check the path"
                + (pattern if any(Path(path).exists() for path in paths) else "")
            ) from error
        raise SourceError(
            f"{quoted(paths)} cannot be read: {summary(error)}; "
            "check that it is complete and that its name matches its format"
        ) from error
