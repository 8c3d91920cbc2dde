"""Commands and options of ``rddals``; other modules of this package implement the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import rddals
from rddals.cli import commands, demo, plans, streams, studies
from rddals.cli.expand import expanded
from rddals.cli.failures import exit_codes
from rddals.cli.lists import parsed_grid, whole
from rddals.cli.options import Common, Evaluation, Files, Lambda, Learning, Training, column_names
from rddals.cli.output import Output
from rddals.cli.parameters import (
    Columns,
    Exchanges,
    Json,
    ModelPath,
    OnePrecision,
    Partitioners,
    Rank,
    RatingsPaths,
    Verbose,
)
from rddals.kernels import native
from rddals.study.runs import Settings

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
@expanded
def demo_command(common: Common) -> None:
    """Train on PySpark's sample ratings and show every step."""
    demo.run(common, common.output)


@app.command("train", epilog=EXIT_CODES)
@expanded
def train_command(
    ratings: RatingsPaths,
    out: Annotated[
        str, typer.Option(metavar="DIR", show_default=False, help="Directory for the model.")
    ],
    training: Training,
    common: Common,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing model at DIR.")
    ] = False,
) -> None:
    """Train a model on ratings and save it."""
    commands.train(common, common.output, ratings, training, out, overwrite)


@app.command("recommend", epilog=EXIT_CODES)
@expanded
def recommend_command(
    model: ModelPath,
    common: Common,
    user: Annotated[
        int | None, typer.Option(show_default=False, help="Recommend products to this user.")
    ] = None,
    product: Annotated[
        int | None, typer.Option(show_default=False, help="Recommend users for this product.")
    ] = None,
    num: Annotated[int, typer.Option(min=1, help="Number of recommendations.")] = 10,
) -> None:
    """Recommend products to a user, or users for a product."""
    commands.recommend(common, common.output, model, user, product, num)


@app.command("evaluate", epilog=EXIT_CODES)
@expanded
def evaluate_command(
    model: ModelPath, ratings: RatingsPaths, evaluation: Evaluation, common: Common
) -> None:
    """Compare a model's predictions with ratings."""
    commands.evaluate(common, common.output, model, ratings, evaluation)


@app.command("plan", epilog=EXIT_CODES)
@expanded
def plan_command(
    common: Common,
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
) -> None:
    """Compute what trainings would move between blocks, without training."""
    grid = parsed_grid(exchange, partitioner, blocks, rank, least=-1)
    sizes = {"users": users, "products": products, "ratings": count, "executors": executors}
    if not ratings:
        plans.plan_from_sizes(common.output, grid, sizes, degrees or "lognormal:1")
        return
    plans.reject_sizes(users=users, products=products, ratings=count, degrees=degrees)
    names, number = column_names(columns), whole("--executors", executors)
    plans.plan(common, common.output, ratings, grid, number, names)


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
@expanded
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
    common: Common,
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
    lambda_: Lambda = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the initial factors.")] = 0,
    precision: OnePrecision = "double",
    columns: Columns = None,
) -> None:
    """Train with every combination of settings, measure what moves, and write a report."""
    grid = parsed_grid(exchange, partitioner, blocks, rank, mllib=mllib)
    settings = Settings(iterations, lambda_, seed, precision)
    names, version = column_names(columns), rddals_version()
    studies.study(common, common.output, ratings, grid, settings, out, names, version)


@app.command("stream", epilog=EXIT_CODES)
@expanded
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
    files: Files,
    learning: Learning,
    common: Common,
) -> None:
    """Learn new files batch by batch; SIGTERM or Ctrl-C stops after the current batch."""
    streams.stream(common, common.output, folder, files, learning, out)


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
