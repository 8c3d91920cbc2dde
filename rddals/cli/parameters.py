"""Arguments and options shared by several commands."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rddals.config import Exchange, Kernels, Precision

Partitioner = Literal["hash", "range", "balanced", "locality"]
Format = Literal["csv", "parquet"]

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
        help="Names of the three columns, if they are not common ones.",
    ),
]
Rank = Annotated[int, typer.Option(min=1, help="Length of a factor row.")]
OneExchange = Annotated[
    Exchange, typer.Option(help="How factor rows reach the blocks that need them.")
]
OnePartitioner = Annotated[Partitioner, typer.Option(help="How ids are assigned to blocks.")]
OnePrecision = Annotated[Precision, typer.Option(help="Precision of the normal equations.")]
OneKernels = Annotated[
    Kernels, typer.Option(help="Implementation of the solver: compiled or NumPy.")
]
Exchanges = Annotated[
    str, typer.Option(metavar="NAMES", help="all, or some of shuffle,broadcast,join,local.")
]
Partitioners = Annotated[
    str, typer.Option(metavar="NAMES", help="all, or some of hash,range,balanced,locality.")
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout, and text on stderr."),
]
Master = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        rich_help_panel=SPARK,
        help="Cluster to run on, such as spark://host:7077 or yarn. Default: Spark's "
        "configuration, else local[*], this machine. On a cluster, set PYSPARK_PYTHON to a Python "
        "that has numpy and scipy there.",
    ),
]
Conf = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        rich_help_panel=SPARK,
        help="Spark setting, such as spark.driver.memory=8g; may be repeated.",
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        rich_help_panel=SPARK,
        help="Show Spark's log, and the full traceback of an error.",
    ),
]
ModelPath = Annotated[
    str, typer.Argument(metavar="DIR", help="Directory of a model saved by rddals or MLlib.")
]
