"""Ratings from files, read by Spark: delimited text or Parquet, plain or compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, NumericType

from rddals.blocks.ratings import INT32_MAX, INT32_MIN
from rddals.errors import SourceError
from rddals.rdds.failures import summary
from rddals.rdds.hadoop import exists
from rddals.sources.columns import ROLES, pick_columns
from rddals.sources.faults import Ratings
from rddals.sources.layout import PARQUET, PUBLISHED, Layout, detect
from rddals.sources.paths import escaped, first_line, plain, quoted

__all__ = ["read_batch", "read_ratings"]


def read_ratings(
    spark: SparkSession, paths: Sequence[str], columns: Sequence[str] | None = None
) -> Ratings:
    """Find out how ratings are laid out, by their name and first line, and have Spark read them.

    Parameters
    ----------
    spark : SparkSession
    paths : sequence of str
        Files, directories or globs, all of one format. In a directory that holds MovieLens as
        published, its ratings are found.
    columns : sequence of str, optional
        What the columns of users, items and ratings are called, if not by a usual name.

    Raises
    ------
    SourceError
        If there is nothing at a path, or nothing in it, or it is no file of ratings.
    """
    for path in paths:
        if path in ("-", "/dev/stdin"):
            raise SourceError(f"{path}: Spark cannot read standard input; pass a file")
    paths = tuple(_published(spark, path) for path in paths)
    name = paths[0].rstrip("/").rpartition("/")[2].removesuffix(".gz")
    with _naming_files(paths):
        if name.endswith(PARQUET):
            return _from_parquet(spark, paths, columns)
        first = spark.read.text(list(paths)).filter(_not_blank(F.col("value"))).first()
        if first is None:
            raise SourceError("it is empty; a file of ratings has one to a line")
        if first["value"].startswith("PAR1"):
            return _from_parquet(spark, paths, columns)
        return _from_text(spark, paths, detect(first["value"], name, columns))


def read_batch(
    spark: SparkSession,
    files: Sequence[str],
    columns: Sequence[str] | None = None,
    form: str | None = None,
) -> Ratings | None:
    """Files that came together, read as `read_ratings` does; None if there is no line in any.

    Parameters
    ----------
    spark : SparkSession
    files : sequence of str
        Each one file; no patterns.
    columns : sequence of str, optional
    form : {"csv", "parquet"}, optional
        What they are, if that is not to be told from names and first lines.

    Raises
    ------
    SourceError
        If one is gone, or no file of ratings, or laid out in another way than the rest.
    """
    found: dict[str, Layout | None] = {}
    for file in files:
        if not exists(spark, file):
            raise SourceError(
                f"{plain(file)} was found and is gone before it was learned; put it back, or an "
                "empty file in its place"
            )
        line = first_line(spark, file)
        if line is None:
            continue
        name = file.rpartition("/")[2].removesuffix(".gz")
        is_parquet = name.endswith(PARQUET) or line.startswith("PAR1")
        if form == "parquet" or (form is None and is_parquet):
            found[file] = None
        else:
            with _naming_files((file,)):
                found[file] = detect(line, name, columns)
    if not found:
        return None
    (first, layout), *others = found.items()
    for file, other in others:
        if other != layout:
            raise SourceError(
                f"{plain(file)} is {_described(other)} and {plain(first)} is {_described(layout)}; "
                "files of one batch have the same columns in the same places: make them alike, "
                "where they are, or begin with --files-per-batch 1"
            )
    paths = tuple(map(escaped, found))
    with _naming_files(paths):
        if layout is None:
            return _from_parquet(spark, paths, columns)
        return _from_text(spark, paths, layout)


def _described(layout: Layout | None) -> str:
    return "Parquet" if layout is None else layout.describe()


@contextmanager
def _naming_files(paths: tuple[str, ...]) -> Iterator[None]:
    """Let what fails meanwhile name the files, and say what to look at."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{quoted(paths)}: {error}") from None
    except (Py4JJavaError, PySparkException) as error:
        if "PATH_NOT_FOUND" in str(error):
            pattern = "; Spark takes *, ?, [ and { for patterns: escape them with a backslash"
            raise SourceError(
                f"{quoted(paths)}: there is no such file or directory; check the path"
                + (pattern if any(Path(path).exists() for path in paths) else "")
            ) from error
        raise SourceError(
            f"{quoted(paths)} cannot be read: {summary(error)}; "
            "check that it is complete, and that its name fits its format"
        ) from error


def _from_text(spark: SparkSession, paths: tuple[str, ...], layout: Layout) -> Ratings:
    lines = spark.read.text(list(paths)).filter(_not_blank(F.col("value")))
    if layout.header is not None:  # every file has its own
        lines = lines.filter(F.col("value") != layout.header)
    kinds = dict(zip(layout.columns, ("int", "int", "float"), strict=True))
    schema = [f"c{field} {kinds.get(field, 'string')}" for field in range(layout.fields)]
    # Text is split into lines first and into fields here, so that a line that cannot be read is
    # still there to be shown.
    parsed = F.from_csv(
        F.col("value"),
        ", ".join([*schema, "malformed string"]),
        {
            "sep": layout.separator,
            "columnNameOfCorruptRecord": "malformed",
            "ignoreLeadingWhiteSpace": "true",
            "ignoreTrailingWhiteSpace": "true",
            "escape": '"',
        },
    )
    values = [F.col(f"parsed.c{column}") for column in layout.columns]
    # Too many or too few fields: none of them can be trusted.
    sound = [F.when(F.col("parsed.malformed").isNull(), value) for value in values]
    rows = lines.withColumn("file", F.col("_metadata.file_path")).withColumn("parsed", parsed)
    return Ratings(
        paths=paths,
        description=layout.describe(),
        frame=lines.withColumn("parsed", parsed).select(*_named(sound)),
        faulty=rows.select("file", F.col("value").alias("line"), *_named(sound))
        .filter(_is_faulty())
        .select("file", "line"),
        layout=layout,
    )


def _from_parquet(
    spark: SparkSession, paths: tuple[str, ...], columns: Sequence[str] | None
) -> Ratings:
    if paths[0].endswith(".gz"):
        raise SourceError("it is gzipped Parquet; gunzip it, Parquet is compressed inside")
    frame = spark.read.parquet(*paths)
    names = [frame.columns[position] for position in pick_columns(frame.columns, columns)]
    for role, name in zip(ROLES, names, strict=True):
        kind = frame.schema[name].dataType
        if not isinstance(kind, (NumericType, BooleanType)):
            raise SourceError(
                f"column {name!r} is of type {kind.simpleString()}; "
                f"{'ratings are numbers' if role == 'rating' else 'ids are integers'}"
            )
    values = [frame[f"`{name.replace('`', '``')}`"] for name in names]
    rows = frame.select(F.col("_metadata.file_path").alias("file"), *_named(values))
    faulty = rows.filter(_is_faulty())
    return Ratings(
        paths=paths,
        description=f"Parquet, columns {', '.join(names)}",
        frame=frame.select(*_named(values)),
        faulty=faulty.withColumnRenamed("product", "item"),
        layout=None,
    )


def _named(values: Sequence[Column]) -> list[Column]:
    return [
        value.alias(name) for value, name in zip(values, ("user", "product", "rating"), strict=True)
    ]


def _is_faulty() -> Column:
    """Whether a row of user, product and rating cannot be trained on; never null."""
    rating = F.col("rating").cast("float")
    faulty = rating.isNull() | F.isnan(rating) | (F.abs(rating) == float("inf"))
    for name in ("user", "product"):
        id_ = F.col(name)
        faulty = faulty | id_.isNull() | ~id_.between(INT32_MIN, INT32_MAX)
    return faulty


def _not_blank(value: Column) -> Column:
    return F.length(F.trim(value)) > 0


def _published(spark: SparkSession, path: str) -> str:
    """The ratings in a directory of MovieLens as published, else the path itself."""
    for name in (*PUBLISHED, "ratings.csv"):
        if not path.endswith(name) and exists(spark, f"{path.rstrip('/')}/{name}"):
            return f"{path.rstrip('/')}/{name}"
    return path
