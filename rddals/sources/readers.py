"""Read ratings from files with Spark: delimited text or Parquet, plain or compressed."""

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
from rddals.sources.layout import PARQUET, PUBLISHED, Layout, detect
from rddals.sources.paths import escaped, first_line, plain, quoted
from rddals.sources.ratings import Ratings

__all__ = ["read_batch", "read_ratings"]


def read_ratings(
    spark: SparkSession, paths: Sequence[str], columns: Sequence[str] | None = None
) -> Ratings:
    """Read ratings with Spark; their format is detected from the name and first line.

    Parameters
    ----------
    spark : SparkSession
    paths : sequence of str
        Files, directories or globs, all of one format. In a published MovieLens directory, only
        the ratings are read.
    columns : sequence of str, optional
        Names of the columns of user, item and rating. By default common names are searched.

    Raises
    ------
    SourceError
        If a path does not exist, is empty, or is not a file of ratings.
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
            raise SourceError("the file is empty; pass one with a rating per line")
        if first["value"].startswith("PAR1"):
            return _from_parquet(spark, paths, columns)
        return _from_text(spark, paths, detect(first["value"], name, columns))


def read_batch(
    spark: SparkSession,
    files: Sequence[str],
    columns: Sequence[str] | None = None,
    form: str | None = None,
) -> Ratings | None:
    """Read the files of one batch like `read_ratings`; return None if all are empty.

    Parameters
    ----------
    spark : SparkSession
    files : sequence of str
        Paths of files, without patterns.
    columns : sequence of str, optional
        Names of the columns of user, item and rating. By default common names are searched.
    form : {"csv", "parquet"}, optional
        Format of the files. By default it is detected from names and first lines.

    Raises
    ------
    SourceError
        If a file is missing, has no ratings, or has other columns than the rest.
    """
    layouts: dict[str, Layout | None] = {}
    for file in files:
        if not exists(spark, file):
            raise SourceError(
                f"{plain(file)} is missing and has not been learned; restore it, or put an empty "
                "file in its place"
            )
        line = first_line(spark, file)
        if line is None:
            continue
        name = file.rpartition("/")[2].removesuffix(".gz")
        is_parquet = name.endswith(PARQUET) or line.startswith("PAR1")
        if form == "parquet" or (form is None and is_parquet):
            layouts[file] = None
        else:
            with _naming_files((file,)):
                layouts[file] = detect(line, name, columns)
    if not layouts:
        return None
    (first, layout), *others = layouts.items()
    for file, other in others:
        if other != layout:
            raise SourceError(
                f"{plain(file)} is {_describe(other)} and {plain(first)} is {_describe(layout)}; "
                "files of one batch need the same columns in the same order: edit them in place, "
                "or start a new stream with --files-per-batch 1"
            )
    paths = tuple(map(escaped, layouts))
    with _naming_files(paths):
        if layout is None:
            return _from_parquet(spark, paths, columns)
        return _from_text(spark, paths, layout)


def _describe(layout: Layout | None) -> str:
    return "Parquet" if layout is None else layout.describe()


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


def _from_text(spark: SparkSession, paths: tuple[str, ...], layout: Layout) -> Ratings:
    lines = spark.read.text(list(paths)).filter(_not_blank(F.col("value")))
    if layout.header is not None:  # every file has a header
        lines = lines.filter(F.col("value") != layout.header)
    kinds = dict(zip(layout.columns, ("int", "int", "float"), strict=True))
    schema = [f"c{field} {kinds.get(field, 'string')}" for field in range(layout.fields)]
    # Text is split into lines before fields, so that an error can quote a line that cannot be
    # parsed.
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
    # With too many or too few fields, the position of a value is unknown.
    valid_values = [F.when(F.col("parsed.malformed").isNull(), value) for value in values]
    rows = lines.withColumn("file", F.col("_metadata.file_path")).withColumn("parsed", parsed)
    return Ratings(
        paths=paths,
        description=layout.describe(),
        frame=lines.withColumn("parsed", parsed).select(*_named(valid_values)),
        faulty=rows.select("file", F.col("value").alias("line"), *_named(valid_values))
        .filter(_is_faulty())
        .select("file", "line"),
        layout=layout,
    )


def _from_parquet(
    spark: SparkSession, paths: tuple[str, ...], columns: Sequence[str] | None
) -> Ratings:
    if paths[0].endswith(".gz"):
        raise SourceError("the file is gzipped Parquet; gunzip it, Parquet compresses itself")
    frame = spark.read.parquet(*paths)
    names = [frame.columns[position] for position in pick_columns(frame.columns, columns)]
    for role, name in zip(ROLES, names, strict=True):
        kind = frame.schema[name].dataType
        if not isinstance(kind, (NumericType, BooleanType)):
            raise SourceError(
                f"column {name!r} has type {kind.simpleString()}; "
                f"convert {'ratings to numbers' if role == 'rating' else 'ids to integers'}"
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
    """Return a condition, never null, that a row is not a valid rating."""
    rating = F.col("rating").cast("float")
    faulty = rating.isNull() | F.isnan(rating) | (F.abs(rating) == float("inf"))
    for name in ("user", "product"):
        id_ = F.col(name)
        faulty = faulty | id_.isNull() | ~id_.between(INT32_MIN, INT32_MAX)
    return faulty


def _not_blank(value: Column) -> Column:
    return F.length(F.trim(value)) > 0


def _published(spark: SparkSession, path: str) -> str:
    """Return the path of the ratings in a MovieLens directory, else the path itself."""
    for name in (*PUBLISHED, "ratings.csv"):
        if not path.endswith(name) and exists(spark, f"{path.rstrip('/')}/{name}"):
            return f"{path.rstrip('/')}/{name}"
    return path
