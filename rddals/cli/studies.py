"""The command study."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession

from rddals.cli.failures import InputError
from rddals.cli.options import Common
from rddals.cli.output import Output
from rddals.exchange.choice import readable_bytes
from rddals.rdds.degrees import count_degrees, digest_of
from rddals.rdds.ingest import rating_source
from rddals.rdds.links import NoRatingsError
from rddals.sources.ratings import Ratings
from rddals.sources.readers import read_ratings
from rddals.study.findings import findings
from rddals.study.grid import Combination, Grid
from rddals.study.record import Record, check_folder
from rddals.study.runs import Settings, Study

#: Without compression, measured bytes are the bytes sent.
UNCOMPRESSED = {"spark.shuffle.compress": "false", "spark.broadcast.compress": "false"}


def study(
    common: Common,
    output: Output,
    paths: Sequence[str],
    grid: Grid,
    settings: Settings,
    out: Path,
    columns: Sequence[str] | None,
    version: str,
) -> None:
    """Run the missing combinations of a grid, and write the report of all runs."""
    page = _page()
    check_folder(out)
    common = common.with_defaults(UNCOMPRESSED)
    with common.session(output) as spark:
        with output.busy("detecting the format of the ratings"):
            ratings = read_ratings(spark, paths, columns)
        output.fact("ratings", f"{ratings.name} ({ratings.description})")
        with ratings.locating_faults(), ExitStack() as stack:
            frame = ratings.frame.cache()
            stack.callback(frame.unpersist)
            with output.busy("reading the ratings"):
                subject = _subject(spark, ratings, frame, settings)
            about = {
                "rddals": version,
                "paths": list(ratings.paths),
                "format": ratings.description,
                "cores": spark.sparkContext.defaultParallelism,
            }
            record = Record(out, subject, about)
            missing = grid.missing(record.done)
            output.fact("runs", _counted(len(grid.combinations()), len(missing)))
            if missing:
                try:
                    _run(output, Study(frame, rating_source(frame), settings), missing, record)
                except BaseException:
                    if record.done:
                        output.fact(
                            "written", f"{_write(page, record, out)[0]}, of the completed runs"
                        )
                    raise
    report, csv = _write(page, record, out)
    sentences = findings(record.document)
    output.section("Findings", "Computed from the figures in the report.")
    for sentence in sentences:
        output.line(sentence)
    output.fact("written", f"{report}, {csv} and {out / 'study.json'}")
    files = {"report": str(report), "csv": str(csv), "json": str(out / "study.json")}
    output.result({**files, "runs": len(record.done), "findings": sentences})


def _write(page: Any, record: Record, out: Path) -> tuple[Path, Path]:
    return page.write_report(record.document, out), record.write_csv()


def _page() -> Any:
    """Import the module that writes the report, before any long work."""
    try:
        from rddals.study import page
    except ImportError as error:
        raise InputError(
            f"the report needs {error.name}; install it with: pip install 'rddals[study]'"
        ) from error
    return page


def _subject(
    spark: SparkSession, ratings: Ratings, frame: DataFrame, settings: Settings
) -> dict[str, Any]:
    """Return the properties that all runs of a study must share."""
    sc = spark.sparkContext
    source = rating_source(frame)
    try:
        users, products = count_degrees(source)
    except NoRatingsError:
        raise InputError(f"{ratings.name} contains no ratings") from None
    return {
        "ratings": {
            "ratings": int(users.counts.sum()),
            "users": len(users.ids),
            "products": len(products.ids),
            "digest": str(digest_of(source)),
        },
        "settings": settings.document(),
        "spark": sc.version,
        "master": sc.master,
        "compressed": {name: _is_compressed(sc, name) for name in ("shuffle", "broadcast")},
    }


def _is_compressed(sc: SparkContext, kind: str) -> bool:
    return sc.getConf().get(f"spark.{kind}.compress", "true").strip().lower() == "true"


def _counted(runs: int, missing: int) -> str:
    done = runs - missing
    if not done:
        return f"{runs}"
    return f"{runs}, {done} already complete" if missing else f"{runs}, all complete"


def _run(output: Output, study: Study, missing: Sequence[Combination], record: Record) -> None:
    with output.busy("warming up"):
        study.warm_up(missing)
    with output.steps(len(missing)) as progress:

        def report(combination: Combination, run: dict[str, Any]) -> None:
            moved = readable_bytes(run["measured"]["bytes"])
            seconds = run["iteration_seconds"]
            progress(f"{combination}: {moved} and {seconds:.2f} s per iteration")

        study.run(missing, record, report)
