"""Options of the commands, checked and parsed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyspark.sql import SparkSession

from rddals.cli.context import spark_is_configured, spark_session
from rddals.cli.failures import InputError
from rddals.cli.output import Output

__all__ = [
    "Evaluation",
    "Files",
    "Learning",
    "SparkOptions",
    "Training",
    "column_names",
    "require_implicit",
]

#: Maximum of seconds between two scans for files: a week.
MAX_INTERVAL = 604_800


@dataclass(frozen=True, slots=True)
class SparkOptions:
    """Options of the Spark session."""

    master: str | None
    conf: dict[str, str]
    verbose: bool

    @classmethod
    def checked(cls, master: str | None, conf: Sequence[str] | None, verbose: bool) -> SparkOptions:
        """Return the options parsed from the command line."""
        settings = {}
        for setting in conf or ():
            name, equals, value = setting.partition("=")
            if not (name and equals):
                raise InputError(f"--conf {setting}: pass NAME=VALUE")
            settings[name] = value
        return cls(master, settings, verbose)

    @property
    def is_configured(self) -> bool:
        """Whether Spark is running, or its cluster or configuration is given."""
        return bool(self.master or self.conf) or spark_is_configured()

    @contextlib.contextmanager
    def session(self, output: Output) -> Iterator[SparkSession]:
        """Start a Spark session for a command."""
        with contextlib.ExitStack() as stack:
            with output.busy("starting Spark"):
                spark = stack.enter_context(spark_session(self.master, self.conf, self.verbose))
            yield spark


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of a training and its held-out part; `rddals.config` checks most ranges."""

    rank: int
    iterations: int
    lambda_: float
    implicit: bool = False
    alpha: float = 1.0
    nonnegative: bool = False
    exchange: str = "auto"
    partitioner: str = "hash"
    blocks: int = -1
    holdout: float = 0.0
    seed: int = 0
    precision: str = "double"
    kernels: str = "auto"
    tol: float = 0.0
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.holdout < 1:
            raise InputError(f"--holdout must be from 0 to below 1 but got {self.holdout}")
        if self.blocks == 0:
            raise InputError("--blocks must be -1 or positive but got 0")

    def describe(self) -> str:
        """Return the settings in one line."""
        parts = [
            f"rank {self.rank}",
            f"{self.iterations} iterations",
            f"lambda {self.lambda_:g}",
            f"implicit, alpha {self.alpha:g}" if self.implicit else "explicit",
            *(["nonnegative"] if self.nonnegative else []),
            f"{self.precision} precision",
            *([f"tol {self.tol:g}"] if self.tol else []),
            f"seed {self.seed}",
        ]
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Settings of an evaluation; with `top`, that many recommendations are ranked."""

    top: int | None
    seen: str | None
    columns: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Learning:
    """Settings of a stream; `rddals.config` checks most ranges."""

    rank: int
    iterations: int
    lambda_: float | None
    gamma: float | None
    update: str
    seed: int
    exchange: str
    partitioner: str
    blocks: int
    bad_ratings: str

    def __post_init__(self) -> None:
        if self.blocks == 0:
            raise InputError("--blocks must be -1 or positive but got 0")


@dataclass(frozen=True, slots=True)
class Files:
    """Input files of a stream.

    Attributes
    ----------
    folder : str
    form : str or None
        "csv" or "parquet"; None to detect the format.
    columns : tuple of str or None
    once : bool
        Whether to stop when all files present are learned.
    every : float
        Seconds between two scans for new files.
    per_batch : int or None
        Maximum number of files per batch.
    """

    folder: str
    form: str | None
    columns: tuple[str, ...] | None
    once: bool
    every: float
    per_batch: int | None

    def __post_init__(self) -> None:
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
