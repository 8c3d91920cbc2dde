"""Arguments and options that several commands share, and the choices among names."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

__all__ = [
    "BadRatings",
    "Columns",
    "Conf",
    "Exchange",
    "Exchanges",
    "Format",
    "Json",
    "Kernels",
    "Master",
    "ModelPath",
    "OneExchange",
    "OneKernels",
    "OnePartitioner",
    "OnePrecision",
    "Partitioner",
    "Partitioners",
    "Precision",
    "Rank",
    "RatingsPaths",
    "Update",
    "Verbose",
]


class Exchange(Enum):
    auto = "auto"
    broadcast = "broadcast"
    shuffle = "shuffle"
    join = "join"
    local = "local"


class Partitioner(Enum):
    hash = "hash"
    range = "range"
    balanced = "balanced"
    locality = "locality"


class Precision(Enum):
    double = "double"
    single = "single"


class Kernels(Enum):
    auto = "auto"
    native = "native"
    numpy = "numpy"


class Update(Enum):
    sgd = "sgd"
    als = "als"


class BadRatings(Enum):
    refuse = "raise"
    skip = "skip"


class Format(Enum):
    csv = "csv"
    parquet = "parquet"


SPARK = "Spark"

RatingsPaths = Annotated[
    list[str],
    typer.Argument(
        metavar="RATINGS",
        show_default=False,
        help="Files, directories or globs: MovieLens' u.data, ratings.dat or ratings.csv, any "
        "CSV, Parquet; gzipped or not.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="USER,ITEM,RATING",
        help="What the three columns are called, if not by a usual name.",
    ),
]
Rank = Annotated[int, typer.Option(min=1, help="Length of a factor.")]
OneExchange = Annotated[
    Exchange, typer.Option(help="How factor rows reach the blocks that need them.")
]
OnePartitioner = Annotated[Partitioner, typer.Option(help="Where users and products live.")]
OnePrecision = Annotated[Precision, typer.Option(help="In which precision equations are solved.")]
OneKernels = Annotated[
    Kernels, typer.Option(help="Which implementation solves them: compiled, or NumPy.")
]
Exchanges = Annotated[
    str, typer.Option(metavar="NAMES", help="all, or some of shuffle,broadcast,join,local.")
]
Partitioners = Annotated[
    str, typer.Option(metavar="NAMES", help="all, or some of hash,range,balanced,locality.")
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr."),
]
Master = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel=SPARK,
        help="Cluster to run on, such as spark://host:7077 or yarn; by default this machine, "
        "local[*], or what Spark's configuration says. On a cluster set PYSPARK_PYTHON to a "
        "Python that has numpy and scipy there.",
    ),
]
Conf = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        rich_help_panel=SPARK,
        help="A setting of Spark, such as spark.driver.memory=8g; may be repeated.",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        rich_help_panel=SPARK,
        help="Show Spark's own log, and the whole traceback of an error.",
    ),
]
ModelPath = Annotated[
    str, typer.Argument(metavar="DIR", help="A model that rddals train or MLlib saved.")
]
