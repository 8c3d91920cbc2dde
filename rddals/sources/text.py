"""Read delimited text with Spark."""

from __future__ import annotations

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from rddals.sources.layout import Layout
from rddals.sources.ratings import Ratings, is_faulty, named


def read_text(spark: SparkSession, paths: tuple[str, ...], layout: Layout) -> Ratings:
    """Read ratings of one layout. Lines that cannot be parsed become rows of nulls."""
    lines = spark.read.text(list(paths)).filter(not_blank(F.col("value")))
    if layout.header is not None:  # every file has a header
        lines = lines.filter(F.col("value") != layout.header)
    user, item, rating = layout.columns
    types = ["float" if field == rating else "string" for field in range(layout.fields)]
    schema = [f"c{field} {kind}" for field, kind in enumerate(types)]
    # Text is split into lines before fields, so that an error can quote a line that cannot be
    # parsed. A quote in a quoted field is doubled, or escaped by a backslash, as Spark writes it.
    lines = lines.withColumn("doubled", _fields(layout, schema, escape='"'))
    by_backslash = F.col("doubled.malformed").isNotNull() & F.col("value").contains('\\"')
    escaped = _fields(layout, schema, escape="\\")
    parsed = F.when(by_backslash, escaped).otherwise(F.col("doubled"))
    values = [
        *(_whole_number(f"parsed.c{id_}") for id_ in (user, item)),
        F.col(f"parsed.c{rating}"),
    ]
    # With too many or too few fields, the position of a value is unknown.
    valid_values = [F.when(F.col("parsed.malformed").isNull(), value) for value in values]
    rows = lines.withColumn("file", F.col("_metadata.file_path")).withColumn("parsed", parsed)
    return Ratings(
        paths=paths,
        description=layout.describe(),
        frame=lines.withColumn("parsed", parsed).select(*named(valid_values)),
        faulty=rows.select("file", F.col("value").alias("line"), *named(valid_values))
        .filter(is_faulty())
        .select("file", "line"),
        layout=layout,
    )


def _fields(layout: Layout, schema: list[str], escape: str) -> Column:
    """Return the fields of a line; ``malformed`` is not null if it cannot be split into them."""
    options = {
        "sep": layout.separator,
        "columnNameOfCorruptRecord": "malformed",
        "ignoreLeadingWhiteSpace": "true",
        "ignoreTrailingWhiteSpace": "true",
        "escape": escape,
    }
    return F.from_csv(F.col("value"), ", ".join([*schema, "malformed string"]), options)


def not_blank(value: Column) -> Column:
    """Return a condition that a line has a character."""
    return F.length(F.trim(value)) > 0


def _whole_number(text: str) -> Column:
    """Convert a column of text to int; what is not a whole number of 32 bits becomes null."""
    decimal = f"try_cast({text} AS DECIMAL(38, 18))"  # of "1.0"
    whole = f"if({decimal} = floor({decimal}), try_cast({decimal} AS INT), NULL)"
    return F.expr(f"coalesce(try_cast({text} AS INT), {whole})")
