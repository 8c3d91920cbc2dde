"""Read Parquet with Spark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, NumericType

from rddals.blocks.column_names import ROLES
from rddals.errors import SourceError
from rddals.sources.columns import pick_columns
from rddals.sources.ratings import Ratings, is_faulty, named

#: Suffixes of Parquet files.
SUFFIXES = (".parquet", ".parq")
#: First bytes of a Parquet file.
MAGIC = "PAR1"


def is_parquet(name: str, first_line: str = "") -> bool:
    """Return whether a file is Parquet, by its name or the beginning of its content."""
    return name.endswith(SUFFIXES) or first_line.startswith(MAGIC)


def read_parquet(
    spark: SparkSession, paths: tuple[str, ...], columns: Sequence[str] | None
) -> Ratings:
    """Read ratings from Parquet files of one schema.

    Columns that are missing or not numeric raise `SourceError`.
    """
    if paths[0].endswith(".gz"):
        raise SourceError("the file is gzipped Parquet; gunzip it, Parquet compresses itself")
    # Spark cannot read nanoseconds as a timestamp, not even in a column that is not selected.
    with _setting(spark, "spark.sql.legacy.parquet.nanosAsLong", "true"):
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
    rows = frame.select(F.col("_metadata.file_path").alias("file"), *named(values))
    faulty = rows.filter(is_faulty())
    return Ratings(
        paths=paths,
        description=f"Parquet, columns {', '.join(names)}",
        frame=frame.select(*named(values)),
        faulty=faulty.withColumnRenamed("product", "item"),
        layout=None,
    )


@contextmanager
def _setting(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Change a setting of the session during the block."""
    previous = spark.conf.get(name, None)
    spark.conf.set(name, value)
    try:
        yield
    finally:
        if previous is None:
            spark.conf.unset(name)
        else:
            spark.conf.set(name, previous)
