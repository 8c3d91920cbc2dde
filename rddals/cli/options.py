"""Options of the commands: declared, checked and parsed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import typer
from pyspark.sql import SparkSession

from rddals.cli.context import spark_is_configured, spark_session
from rddals.cli.failures import InputError
from rddals.cli.output import Output
from rddals.cli.parameters import (
    Columns,
    Conf,
    Format,
    Json,
    Master,
    OneExchange,
    OneKernels,
    OnePartitioner,
    OnePrecision,
    Rank,
    Verbose,
)
from rddals.config import BadRatings, Update

#: Maximum of seconds between two scans for files: a week.
MAX_INTERVAL = 604_800

Lambda = Annotated[float, typer.Option("--lambda", min=0.0, help="Weight of the penalty.")]


@dataclass(frozen=True, slots=True)
class Common:
    """Options of every command that runs Spark: output format, cluster and log."""

    as_json: Json = False
    master: Master = None
    conf: Conf = None
    verbose: Verbose = False

    def __post_init__(self) -> None:
        for setting in self.conf or ():
            name, equals, _ = setting.partition("=")
            if not (name and equals):
                raise InputError(f"--conf {setting}: pass NAME=VALUE")

    @property
    def output(self) -> Output:
        """A new output in the requested format."""
        return Output(self.as_json)

    @property
    def is_configured(self) -> bool:
        """Whether Spark is running, or its cluster or configuration is given."""
        return bool(self.master or self.conf) or spark_is_configured()

    def with_defaults(self, conf: Mapping[str, str]) -> Common:
        """Return these options with Spark settings that `conf` on the command line overrides."""
        defaults = [f"{name}={value}" for name, value in conf.items()]
        return replace(self, conf=[*defaults, *(self.conf or ())])

    @contextlib.contextmanager
    def session(self, output: Output) -> Iterator[SparkSession]:
        """Start a Spark session for a command."""
        conf = dict(setting.split("=", 1) for setting in self.conf or ())
        with contextlib.ExitStack() as stack:
            with output.busy("starting Spark"):
                spark = stack.enter_context(spark_session(self.master, conf, self.verbose))
            yield spark


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of a training and its held-out part; `rddals.config` checks most ranges."""

    rank: Rank = 10
    iterations: Annotated[int, typer.Option(min=0, help="Number of iterations.")] = 10
    lambda_: Lambda = 0.1
    implicit: Annotated[
        bool, typer.Option("--implicit", help="Treat ratings as counts, such as plays.")
    ] = False
    alpha: Annotated[
        float | None,
        typer.Option(min=0.0, show_default="1", help="With --implicit: confidence per count."),
    ] = None
    nonnegative: Annotated[
        bool, typer.Option("--nonnegative", help="Constrain all factors to be nonnegative.")
    ] = False
    exchange: OneExchange = "auto"
    partitioner: OnePartitioner = "hash"
    blocks: Annotated[
        int, typer.Option(min=-1, help="Blocks per side; -1 derives it from cores and partitions.")
    ] = -1
    holdout: Annotated[
        float, typer.Option(min=0.0, help="Fraction of the ratings held out for a test, below 1.")
    ] = 0.0
    seed: Annotated[int, typer.Option(help="Seed of initial factors and held-out ratings.")] = 0
    precision: OnePrecision = "double"
    kernels: OneKernels = "auto"
    tol: Annotated[
        float,
        typer.Option(
            min=0.0, help="Stop when an iteration reduces the loss by less than this fraction."
        ),
    ] = 0.0
    columns: Columns = None

    def __post_init__(self) -> None:
        require_implicit(self.implicit, alpha=self.alpha)
        column_names(self.columns)
        if not 0 <= self.holdout < 1:
            raise InputError(f"--holdout must be from 0 to below 1 but got {self.holdout}")
        if self.blocks == 0:
            raise InputError("--blocks must be -1 or positive but got 0")

    @property
    def confidence(self) -> float:
        """The value of `alpha`, 1 by default."""
        return 1.0 if self.alpha is None else self.alpha

    def document(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        columns = column_names(self.columns)
        return asdict(self) | {"alpha": self.confidence, "columns": columns}

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `ALS.train`, or of `ALS.trainImplicit` with `implicit`."""
        arguments = asdict(self)
        for name in ("implicit", "alpha", "holdout", "columns"):
            del arguments[name]
        partitioner = arguments.pop("partitioner")
        if self.implicit:
            arguments["alpha"] = self.confidence
        return arguments | {"userPartitioner": partitioner, "productPartitioner": partitioner}

    def describe(self) -> str:
        """Return the settings in one line."""
        parts = [
            f"rank {self.rank}",
            f"{self.iterations} iterations",
            f"lambda {self.lambda_:g}",
            f"implicit, alpha {self.confidence:g}" if self.implicit else "explicit",
            *(["nonnegative"] if self.nonnegative else []),
            f"{self.precision} precision",
            *([f"tol {self.tol:g}"] if self.tol else []),
            f"seed {self.seed}",
        ]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Settings of an evaluation: of the predictions or, with `implicit`, of the recommendations."""

    implicit: Annotated[
        bool, typer.Option("--implicit", help="Evaluate the ranking: NDCG and precision.")
    ] = False
    top: Annotated[
        int | None,
        typer.Option(
            min=1, show_default="10", help="With --implicit: number of recommendations per user."
        ),
    ] = None
    seen: Annotated[
        str | None,
        typer.Option(
            metavar="RATINGS",
            help="With --implicit: training ratings, excluded from recommendations.",
        ),
    ] = None
    columns: Columns = None

    def __post_init__(self) -> None:
        require_implicit(self.implicit, top=self.top, seen=self.seen)
        column_names(self.columns)

    @property
    def ranked(self) -> int | None:
        """Number of recommendations to rank; None to evaluate predictions."""
        return (self.top or 10) if self.implicit else None


@dataclass(frozen=True, slots=True)
class Learning:
    """Settings of a stream; `rddals.config` checks most ranges."""

    rank: Rank = 10
    iterations: Annotated[int, typer.Option(min=1, help="Passes over each batch.")] = 1
    lambda_: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            min=0.0,
            show_default="0.05 for sgd, 8 for als",
            help="Weight of the penalty.",
        ),
    ] = None
    gamma: Annotated[
        float | None, typer.Option(show_default="0.5", help="Learning rate of sgd.")
    ] = None
    update: Annotated[
        Update,
        typer.Option(
            help="sgd: gradient steps on a batch; als: rows solved from all their ratings."
        ),
    ] = "sgd"
    bad_ratings: Annotated[
        BadRatings, typer.Option(help="How to handle lines that are not valid ratings.")
    ] = "raise"
    exchange: OneExchange = "auto"
    partitioner: OnePartitioner = "hash"
    blocks: Annotated[
        int, typer.Option(min=-1, help="Blocks per side; -1 derives it from the first batch.")
    ] = -1
    seed: Annotated[int, typer.Option(help="Seed of the factors of new products.")] = 0

    def __post_init__(self) -> None:
        if self.blocks == 0:
            raise InputError("--blocks must be -1 or positive but got 0")

    def document(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `StreamingALS`."""
        arguments = asdict(self)
        partitioner = arguments.pop("partitioner")
        arguments["badRatings"] = arguments.pop("bad_ratings")
        return arguments | {"userPartitioner": partitioner, "productPartitioner": partitioner}


@dataclass(frozen=True, slots=True)
class Files:
    """Input files of a stream."""

    form: Annotated[
        Format | None, typer.Option("--format", help="Format of the files; detected by default.")
    ] = None
    columns: Columns = None
    once: Annotated[bool, typer.Option("--once", help="Learn present files and exit.")] = False
    every: Annotated[float, typer.Option(help="Seconds between two scans for new files.")] = 1.0
    per_batch: Annotated[
        int | None,
        typer.Option(
            "--files-per-batch",
            min=1,
            show_default="all new files",
            help="Maximum number of files per batch.",
        ),
    ] = None

    def __post_init__(self) -> None:
        column_names(self.columns)
        if not 0.001 <= self.every <= MAX_INTERVAL:
            raise InputError(
                f"--every must be 0.001 to {MAX_INTERVAL:,} seconds but got {self.every}"
            )


def require_implicit(implicit: bool, **options: object) -> None:
    """Reject options that have no effect without ``--implicit``."""
    for name, value in options.items():
        if value is not None and not implicit:
            raise InputError(f"--{name} requires --implicit; pass both or neither")


def column_names(text: str | None) -> tuple[str, ...] | None:
    """Return the names in ``--columns``."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != 3 or not all(names):
        raise InputError(f"--columns {text}: pass three names, USER,ITEM,RATING")
    return names
