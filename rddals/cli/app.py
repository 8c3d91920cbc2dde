"""Commands and options of ``rddals``; other modules of this package implement the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rddals
from rddals.cli import commands, demo, plans, streams, studies
from rddals.cli.failures import exit_codes
from rddals.cli.lists import numbers, whole, words
from rddals.cli.options import (
    Evaluation,
    Files,
    Learning,
    SparkOptions,
    Training,
    column_names,
    require_implicit,
)
from rddals.cli.output import Output
from rddals.cli.parameters import (
    BadRatings,
    Columns,
    Conf,
    Exchange,
    Exchanges,
    Format,
    Json,
    Kernels,
    Master,
    ModelPath,
    OneExchange,
    OneKernels,
    OnePartitioner,
    OnePrecision,
    Partitioner,
    Partitioners,
    Precision,
    Rank,
    RatingsPaths,
    Update,
    Verbose,
)
from rddals.kernels import native
from rddals.planning.forecast import NAMES
from rddals.rdds.placement import PARTITIONERS
from rddals.study.grid import Grid
from rddals.study.runs import Settings

__all__ = ["app"]

#: Help panel of the options that replace RATINGS.
SIZES_PANEL = "Without RATINGS"

EXIT_CODES = (
    "Exit codes: 0 success; 1 failure while running; 2 invalid option or input; "
    "130 interrupted by Ctrl-C. An error is one line on stderr."
)

app = typer.Typer(
    name="rddals",
    help="ALS matrix factorisation on Spark's RDD API: train, evaluate, recommend.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"rddals {rddals_version()}, kernels: {native.describe()}")
        raise typer.Exit


def rddals_version() -> str:
    """Return the version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(rddals.__name__)
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


@app.callback(epilog=EXIT_CODES)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """ALS matrix factorisation on Spark's RDD API: train, evaluate, recommend."""


@app.command("demo", epilog=EXIT_CODES)
def demo_command(
    as_json: Json = False, master: Master = None, conf: Conf = None, verbose: Verbose = False
) -> None:
    """Train on PySpark's sample ratings and show every step."""
    with exit_codes(verbose):
        demo.run(SparkOptions.checked(master, conf, verbose), Output(as_json))


@app.command("train", epilog=EXIT_CODES)
def train_command(
    ratings: RatingsPaths,
    out: Annotated[
        str, typer.Option(metavar="DIR", show_default=False, help="Directory for the model.")
    ],
    rank: Rank = 10,
    iterations: Annotated[int, typer.Option(min=0, help="Number of iterations.")] = 10,
    lambda_: Annotated[float, typer.Option("--lambda", min=0.0, help="Weight of the penalty.")] = (
        0.1
    ),
    implicit: Annotated[
        bool, typer.Option("--implicit", help="Treat ratings as counts, such as plays.")
    ] = False,
    alpha: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            show_default="1",
            help="With --implicit: confidence added per count.",
        ),
    ] = None,
    nonnegative: Annotated[
        bool, typer.Option("--nonnegative", help="Constrain all factors to be nonnegative.")
    ] = False,
    exchange: OneExchange = Exchange.auto,
    partitioner: OnePartitioner = Partitioner.hash,
    blocks: Annotated[
        int, typer.Option(min=-1, help="Blocks per side; -1 derives it from cores and partitions.")
    ] = -1,
    holdout: Annotated[
        float, typer.Option(min=0.0, help="Fraction of the ratings held out for a test, below 1.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of initial factors and held-out ratings.")] = 0,
    precision: OnePrecision = Precision.double,
    kernels: OneKernels = Kernels.auto,
    tol: Annotated[
        float,
        typer.Option(
            min=0.0, help="Stop when an iteration reduces the loss by less than this fraction."
        ),
    ] = 0.0,
    columns: Columns = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing model at DIR.")
    ] = False,
    as_json: Json = False,
    master: Master = None,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Train a model on ratings and save it."""
    with exit_codes(verbose):
        require_implicit(implicit, alpha=alpha)
        training = Training(
            rank=rank,
            iterations=iterations,
            lambda_=lambda_,
            implicit=implicit,
            alpha=1.0 if alpha is None else alpha,
            nonnegative=nonnegative,
            exchange=exchange.value,
            partitioner=partitioner.value,
            blocks=blocks,
            holdout=holdout,
            seed=seed,
            precision=precision.value,
            kernels=kernels.value,
            tol=tol,
            columns=column_names(columns),
        )
        spark = SparkOptions.checked(master, conf, verbose)
        commands.train(spark, Output(as_json), ratings, training, out, overwrite)


@app.command("recommend", epilog=EXIT_CODES)
def recommend_command(
    model: ModelPath,
    user: Annotated[
        int | None, typer.Option(show_default=False, help="Recommend products to this user.")
    ] = None,
    product: Annotated[
        int | None, typer.Option(show_default=False, help="Recommend users for this product.")
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="Number of recommendations.")] = 10,
    as_json: Json = False,
    master: Master = None,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Recommend products to a user, or users for a product."""
    with exit_codes(verbose):
        spark = SparkOptions.checked(master, conf, verbose)
        commands.recommend(spark, Output(as_json), model, user, product, num)


@app.command("evaluate", epilog=EXIT_CODES)
def evaluate_command(
    model: ModelPath,
    ratings: RatingsPaths,
    implicit: Annotated[
        bool, typer.Option("--implicit", help="Evaluate the ranking: NDCG and precision.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="10",
            help="With --implicit: number of recommendations per user.",
        ),
    ] = None,
    seen: Annotated[
        str | None,
        typer.Option(
            metavar="RATINGS",
            help="With --implicit: training ratings, excluded from recommendations.",
        ),
    ] = None,
    columns: Columns = None,
    as_json: Json = False,
    master: Master = None,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Compare a model's predictions with ratings."""
    with exit_codes(verbose):
        require_implicit(implicit, top=top, seen=seen)
        spark = SparkOptions.checked(master, conf, verbose)
        evaluation = Evaluation((top or 10) if implicit else None, seen, column_names(columns))
        commands.evaluate(spark, Output(as_json), model, ratings, evaluation)


@app.command("plan", epilog=EXIT_CODES)
def plan_command(
    ratings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RATINGS",
            show_default=False,
            help="Files, directories or globs, as for train. Omit them to plan from --users, "
            "--products and --ratings.",
        ),
    ] = None,
    rank: Rank = 10,
    exchange: Exchanges = "all",
    partitioner: Partitioners = "hash",
    blocks: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Blocks per side, one number or several: 4,8,16.")
    ] = "-1",
    executors: Annotated[
        float | None,
        typer.Option(min=1, show_default=False, help="Executors that receive a broadcast."),
    ] = None,
    users: Annotated[
        float | None,
        typer.Option(
            min=1,
            rich_help_panel=SIZES_PANEL,
            show_default=False,
            help="Number of users; 1e9 is accepted.",
        ),
    ] = None,
    products: Annotated[
        float | None,
        typer.Option(
            min=1, rich_help_panel=SIZES_PANEL, show_default=False, help="Number of products."
        ),
    ] = None,
    count: Annotated[
        float | None,
        typer.Option(
            "--ratings",
            min=1,
            rich_help_panel=SIZES_PANEL,
            show_default=False,
            help="Number of ratings.",
        ),
    ] = None,
    degrees: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE",
            rich_help_panel=SIZES_PANEL,
            show_default="lognormal:1",
            help="Distribution of ratings per id: constant, lognormal:SIGMA or pareto:EXPONENT.",
        ),
    ] = None,
    columns: Columns = None,
    as_json: Json = False,
    master: Master = None,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Compute what trainings would move between blocks, without training."""
    with exit_codes(verbose):
        grid = plans.Grid.checked(rank, exchange, partitioner, blocks)
        sizes = {"users": users, "products": products, "ratings": count, "executors": executors}
        if ratings:
            plans.reject_sizes(users=users, products=products, ratings=count, degrees=degrees)
            spark = SparkOptions.checked(master, conf, verbose)
            plans.plan(
                spark,
                Output(as_json),
                ratings,
                grid,
                whole("--executors", executors),
                column_names(columns),
            )
        else:
            plans.plan_from_sizes(Output(as_json), grid, sizes, degrees or "lognormal:1")


@app.command("measure", epilog=EXIT_CODES)
def measure_command(
    log: Annotated[
        str,
        typer.Argument(
            metavar="EVENT_LOG",
            show_default=False,
            help="Event log of a program run with spark.eventLog.enabled: a file, or the directory "
            "of a rolled log.",
        ),
    ],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Report what a program moved, from its Spark event log."""
    with exit_codes(verbose):
        plans.measure(Output(as_json), log)


@app.command("study", epilog=EXIT_CODES)
def study_command(
    ratings: RatingsPaths,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            show_default=False,
            help="Directory for the report; an interrupted study in it is resumed.",
        ),
    ],
    exchange: Exchanges = "all",
    partitioner: Partitioners = "all",
    blocks: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Blocks per side, one number or several.")
    ] = "4,8,16",
    rank: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Length of a factor row, one number or several.")
    ] = "10",
    mllib: Annotated[
        bool, typer.Option("--mllib", help="Also train with MLlib's ALS, for comparison.")
    ] = False,
    iterations: Annotated[
        int,
        typer.Option(min=3, help="Iterations per training; the first and last are not measured."),
    ] = 5,
    lambda_: Annotated[float, typer.Option("--lambda", min=0.0, help="Weight of the penalty.")] = (
        0.1
    ),
    seed: Annotated[int, typer.Option(help="Seed of the initial factors.")] = 0,
    precision: OnePrecision = Precision.double,
    columns: Columns = None,
    as_json: Json = False,
    master: Master = None,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Train with every combination of settings, measure what moves, and write a report."""
    with exit_codes(verbose):
        grid = Grid(
            words("--exchange", exchange, NAMES),
            words("--partitioner", partitioner, PARTITIONERS),
            numbers("--blocks", blocks),
            numbers("--rank", rank),
            mllib,
        )
        settings = Settings(iterations, lambda_, seed, precision.value)
        spark = SparkOptions.checked(master, conf, verbose)
        studies.study(
            spark,
            Output(as_json),
            ratings,
            grid,
            settings,
            out,
            column_names(columns),
            rddals_version(),
        )


@app.command("stream", epilog=EXIT_CODES)
def stream_command(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            show_default=False,
            help="Directory that files of ratings are moved into; formats as for train.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            show_default=False,
            help="Directory for the model, saved at the end; a stream stored in it is resumed.",
        ),
    ],
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Format of the files; detected by default."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Learn present files and exit.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two scans for new files.")] = 1.0,
    per_batch: Annotated[
        int | None,
        typer.Option(
            "--files-per-batch",
            min=1,
            show_default="all new files",
            help="Maximum number of files per batch.",
        ),
    ] = None,
    rank: Rank = 10,
    iterations: Annotated[int, typer.Option(min=1, help="Passes over each batch.")] = 1,
    lambda_: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            min=0.0,
            show_default="0.05 for sgd, 8 for als",
            help="Weight of the penalty.",
        ),
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(show_default="0.5", help="Learning rate of sgd.")
    ] = None,
    update: Annotated[
        Update,
        typer.Option(
            help="sgd: gradient steps on a batch; als: rows solved from all their ratings."
        ),
    ] = Update.sgd,
    bad_ratings: Annotated[
        BadRatings, typer.Option(help="How to handle lines that are not valid ratings.")
    ] = BadRatings.refuse,
    exchange: OneExchange = Exchange.auto,
    partitioner: OnePartitioner = Partitioner.hash,
    blocks: Annotated[
        int, typer.Option(min=-1, help="Blocks per side; -1 derives it from the first batch.")
    ] = -1,
    seed: Annotated[int, typer.Option(help="Seed of the factors of new products.")] = 0,
    columns: Columns = None,
    as_json: Json = False,
    master: Master = None,
    conf: Conf = None,
    verbose: Verbose = False,
) -> None:
    """Learn new files batch by batch; SIGTERM or Ctrl-C stops after the current batch."""
    with exit_codes(verbose):
        source = Files(
            folder=folder,
            form=None if form is None else form.value,
            columns=column_names(columns),
            once=once,
            every=every,
            per_batch=per_batch,
        )
        learning = Learning(
            rank=rank,
            iterations=iterations,
            lambda_=lambda_,
            gamma=gamma,
            update=update.value,
            seed=seed,
            exchange=exchange.value,
            partitioner=partitioner.value,
            blocks=blocks,
            bad_ratings=bad_ratings.value,
        )
        spark = SparkOptions.checked(master, conf, verbose)
        streams.stream(spark, Output(as_json), source, learning, out)


@app.command("package", epilog=EXIT_CODES)
def package_command(
    path: Annotated[
        Path, typer.Argument(metavar="[ZIP]", help="Output file; an existing one is replaced.")
    ] = Path("rddals.zip"),
    as_json: Json = False,
) -> None:
    """Write a zip of rddals for spark-submit --py-files."""
    with exit_codes(verbose=False):
        commands.package(Output(as_json), path)
