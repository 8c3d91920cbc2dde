"""The commands train, recommend, evaluate and package."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from pyspark import RDD

from rddals import ALS, LinksBuilt, MatrixFactorizationModel
from rddals.cli.failures import InputError
from rddals.cli.files import check_destination, load_model, save_model
from rddals.cli.metrics import measure
from rddals.cli.options import Common, Evaluation, Training, column_names
from rddals.cli.output import Output
from rddals.cli.report import (
    history_document,
    kernels_document,
    links_document,
    print_links,
    print_quality,
    quality_document,
)
from rddals.cli.split import split
from rddals.rdds.ingest import rating_source
from rddals.rdds.shipping import write_package
from rddals.sources.ratings import Ratings
from rddals.sources.readers import read_ratings
from rddals.training.events import Listener

#: Recommendations per user when held-out ratings are ranked.
TOP = 10


def fit(
    source: RDD[Any], training: Training, listeners: Sequence[Listener]
) -> MatrixFactorizationModel:
    """Train a model with the given settings."""
    kind = ALS.trainImplicit if training.implicit else ALS.train
    return kind(source, **training.arguments(), listeners=listeners)


def train(
    common: Common,
    output: Output,
    paths: Sequence[str],
    training: Training,
    out: str,
    overwrite: bool,
) -> None:
    """Train a model, test it on the held-out ratings, and save it."""
    with common.session(output) as spark:
        check_destination(spark, out, overwrite)
        with output.busy("detecting the format of the ratings"):
            ratings = read_ratings(spark, paths, column_names(training.columns))
        output.fact("ratings", f"{ratings.name} ({ratings.description})")
        output.fact("settings", training.describe())
        source = rating_source(ratings.frame)
        held_out = None
        if training.holdout:
            source, held_out = split(source, training.holdout, training.seed)
            output.fact("held out", f"{training.holdout:.0%} of all user-product pairs")
        links: list[LinksBuilt] = []

        def report_links(event: Any) -> None:
            if isinstance(event, LinksBuilt):
                links.append(event)
                print_links(output, event)

        start = perf_counter()
        with ratings.locating_faults(), output.progress(training.iterations) as progress:
            model = fit(source, training, (report_links, progress))
        seconds = perf_counter() - start
        kernels = kernels_document(model.history)
        if kernels is not None:
            output.fact("kernels", kernels)
        quality = None
        if held_out is not None:
            top = TOP if training.implicit else None
            with ratings.locating_faults(), output.busy("testing"):
                quality = measure(model, held_out, top=top, seen=source if top else None)
            print_quality(output, quality, "held-out ")
        with output.busy("saving"):
            save_model(spark, model, out, overwrite)
        output.fact("saved", out)
        output.result(
            {
                "model": out,
                "input": {"paths": list(ratings.paths), "format": ratings.description},
                "settings": training.document(),
                **links_document(links[0]),
                "kernels": kernels,
                "history": history_document(model.history),
                "held_out": None if quality is None else quality_document(quality),
                "seconds": seconds,
            }
        )


def recommend(
    common: Common,
    output: Output,
    path: str,
    user: int | None,
    product: int | None,
    num: int,
) -> None:
    """Print the best products for a user, or users for a product."""
    if (user is None) == (product is None):
        raise InputError("pass either --user ID to get products, or --product ID to get users")
    with common.session(output) as spark:
        model = load_model(spark, path)
        with output.busy("recommending"):
            if user is not None:
                best = model.recommendProducts(user, num)
                query, kind = {"user": user}, "product"
            else:
                assert product is not None
                best = model.recommendUsers(product, num)
                query, kind = {"product": product}, "user"
        ids = [int(getattr(rating, kind)) for rating in best]
        output.fact(*next((key, str(value)) for key, value in query.items()))
        output.table(
            (kind, "prediction"),
            [(str(id_), f"{r.rating:.4f}") for id_, r in zip(ids, best, strict=True)],
        )
        recommended = [
            {kind: id_, "prediction": r.rating} for id_, r in zip(ids, best, strict=True)
        ]
        output.result({"model": path, **query, "recommendations": recommended})


def evaluate(
    common: Common,
    output: Output,
    path: str,
    paths: Sequence[str],
    evaluation: Evaluation,
) -> None:
    """Print the errors of a model's predictions, or its ranking quality."""
    columns = column_names(evaluation.columns)
    with common.session(output) as spark, contextlib.ExitStack() as stack:
        with output.busy("detecting the format of the ratings"):
            ratings = read_ratings(spark, paths, columns)
            seen: Ratings | None = None
            if evaluation.seen is not None:
                seen = read_ratings(spark, [evaluation.seen], columns)
        model = load_model(spark, path)
        output.fact("model", f"{path} (rank {model.rank})")
        output.fact("ratings", f"{ratings.name} ({ratings.description})")
        if seen is not None:
            stack.enter_context(seen.locating_faults())
        with ratings.locating_faults(), output.busy("evaluating"):
            quality = measure(
                model,
                rating_source(ratings.frame),
                top=evaluation.ranked,
                seen=None if seen is None else rating_source(seen.frame),
            )
        if not quality.errors.known + quality.errors.unknown:
            raise InputError(f"{ratings.name} contains no ratings")
        print_quality(output, quality, "")
        output.result({"model": path, "rank": model.rank, **quality_document(quality)})


def package(output: Output, path: Path) -> None:
    """Write the sources of rddals as a zip."""
    try:
        write_package(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    output.fact("package", f"{path}, for spark-submit --py-files {path} APP")
    output.result({"package": str(path)})
