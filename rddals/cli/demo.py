"""The demo: the story of a rating, on the ratings inside PySpark's own package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyspark
from pyspark.mllib.recommendation import ALS as MLlibALS
from pyspark.mllib.recommendation import Rating
from pyspark.sql import SparkSession

from partitioners import HashPartitioner
from rddals import HalfStepDone, LinksBuilt
from rddals.blocks.links import link
from rddals.blocks.ratings import RatingBlock
from rddals.blocks.sides import USERS
from rddals.cli.commands import fit
from rddals.cli.failures import InputError
from rddals.cli.metrics import measure
from rddals.cli.options import SparkOptions, Training
from rddals.cli.output import Output
from rddals.cli.report import history_document, kernels_document, links_document, number
from rddals.cli.split import held_out, select
from rddals.exchange.choice import bytes_moved, readable_bytes
from rddals.rdds.ingest import rating_source, read_batches
from rddals.sources.readers import read_ratings

__all__ = ["run"]

TRAINING = Training(rank=8, iterations=10, lambda_=0.1, blocks=4, holdout=0.2, seed=1)
#: Characters of the longest bar.
BAR = 40


def run(where: SparkOptions, output: Output) -> None:
    """Tell the story of a rating."""
    sample = Path(pyspark.__file__).parent / "data/mllib/als/sample_movielens_ratings.txt"
    if not sample.exists():
        raise InputError(f"{sample}: this PySpark comes without sample data; PyPI's has it")
    with where.session(output) as spark:
        output.result(_story(spark, output, sample))


def _story(spark: SparkSession, output: Output, sample: Path) -> dict[str, Any]:
    with output.busy("reading the ratings"):
        ratings = read_ratings(spark, [f"file://{sample}"])
        # The sample is small enough to be looked at here; no other command collects ratings.
        batches = rating_source(ratings.frame).mapPartitionsWithIndex(read_batches).collect()
        everything = RatingBlock.concatenate(batches)
        rows = held_out(everything.users, everything.products, TRAINING.holdout, TRAINING.seed)
        trained, tested = select(everything, ~rows), select(everything, rows)
        training, testing = (spark.sparkContext.parallelize([side]) for side in (trained, tested))
    output.section("1 Ratings", "A user, a product, a number: read once, kept in columns.")
    output.fact("read from", f"pyspark/data/mllib/als/{sample.name}")
    output.fact("format", ratings.description)
    output.fact("to train on", _counted(trained))
    output.fact("held out", f"{_counted(tested)}, by a hash of user and product")
    blocks = _link_blocks(trained)
    _print_blocks(output, blocks)

    events: list[Any] = []
    with output.busy("training"):
        model = fit(training, TRAINING, (events.append,))
    links = next(event for event in events if isinstance(event, LinksBuilt))
    _print_bytes(output, links)
    _print_losses(output, model.history)

    with output.busy("training MLlib's on the same ratings"):
        peer = MLlibALS.train(
            training.flatMap(_as_ratings),
            TRAINING.rank,
            TRAINING.iterations,
            TRAINING.lambda_,
            TRAINING.blocks,
            seed=TRAINING.seed,
        )
        rmse = {
            name: measure(trained, testing).errors.rmse
            for name, trained in (("MLlib", peer), ("rddals", model))
        }
    average = float(np.sqrt(np.mean((tested.ratings - trained.ratings.mean()) ** 2)))
    output.section(
        "5 Held-out error",
        f"RMSE of {len(tested)} ratings, after training on the same others with the same\n"
        "settings. The same seed and blocks give MLlib's own model, to rounding.",
    )
    output.table(
        ("predicted by", "RMSE"),
        [
            ("the mean rating, for every pair", number(average)),
            *((name, number(error)) for name, error in rmse.items()),
        ],
    )

    user = int(np.bincount(tested.users).argmax())
    with output.busy("recommending"):
        best = model.recommendProducts(user, 10)
    _print_recommendations(output, user, best, trained, tested)
    return {
        "input": str(sample),
        "settings": TRAINING.describe(),
        **links_document(links),
        "held_out_ratings": len(tested),
        "blocks": blocks,
        "kernels": kernels_document(model.history),
        "history": history_document(model.history),
        "held_out_rmse": {**rmse, "mean rating": average},
        "user": user,
        "recommendations": [{"product": r.product, "prediction": r.rating} for r in best],
    }


def _link_blocks(ratings: RatingBlock) -> list[dict[str, Any]]:
    """Sizes of the link blocks, made here as the workers make them."""
    place = HashPartitioner(TRAINING.blocks)
    sizes = []
    for side, name in enumerate(("users", "products")):
        placed = place.block_of(ratings.users if side == USERS else ratings.products)
        for block in range(TRAINING.blocks):
            linked = link(block, select(ratings, placed == block), side, place)
            sizes.append(
                {
                    "block": f"{name} {block}",
                    "ids": len(linked.in_block.ids),
                    "ratings": len(linked.in_block.ratings),
                    "rows received": len(linked.in_block.source_ids),
                    "rows sent": int(linked.out_block.counts.sum()),
                }
            )
    return sizes


def _print_blocks(output: Output, blocks: Sequence[dict[str, Any]]) -> None:
    output.section(
        "2 Link blocks",
        "A block's in-block says what it solves and which rows of the other side it receives;\n"
        "its out-block says which of its own rows each block over there needs.",
    )
    output.table(list(blocks[0]), [[str(value) for value in block.values()] for block in blocks])


def _print_bytes(output: Output, links: LinksBuilt) -> None:
    output.section(
        "3 Exchange",
        "Each half-step brings every block the factor rows it needs, in one of four ways.\n"
        "The model is the same with each; the bytes are not.",
    )
    moved = [bytes_moved(sizes) for sizes in links.sizes]
    ways = list(moved[0])
    rows = [
        (half_step, *(readable_bytes(sent[way]) for way in ways))
        for half_step, sent in zip(("users send", "products send"), moved, strict=True)
    ]
    rows.append(
        ("an iteration", *(readable_bytes(sum(sent[way] for sent in moved)) for way in ways))
    )
    output.table(("half-step", *ways), rows)
    output.fact("chosen", f"{links.exchange.exchange}: {links.exchange.reason}")


def _print_losses(output: Output, history: Sequence[HalfStepDone]) -> None:
    output.section(
        "4 Alternate",
        "Products are solved from the users' factors, then users from the products'.",
    )
    done = history_document(history)
    full = "\u2501" if output.terminal else "#"
    rows = [
        (
            str(step["iteration"]),
            f"{step['loss']:,.1f}",
            f"{step['seconds']:.2f} s",
            full * round(BAR * step["loss"] / done[0]["loss"]),
        )
        for step in done
    ]
    output.table(("iteration", "loss", "time", ""), rows, left=(3,), style={3: "cyan"})


def _print_recommendations(
    output: Output, user: int, best: Sequence[Rating], trained: RatingBlock, tested: RatingBlock
) -> None:
    output.section("6 Recommend", f"The ten products with the highest predictions for user {user}.")
    known = {
        product: f"{rating:g}{note}"
        for block, note in ((trained, ""), (tested, ", held out"))
        for product, rating in zip(
            block.products[block.users == user].tolist(),
            block.ratings[block.users == user].tolist(),
            strict=True,
        )
    }
    rows = [
        (str(rating.product), f"{rating.rating:.2f}", known.get(rating.product, "not rated"))
        for rating in best
    ]
    output.table(("product", "prediction", "the user's rating"), rows)


def _counted(ratings: RatingBlock) -> str:
    users, products = len(np.unique(ratings.users)), len(np.unique(ratings.products))
    return f"{len(ratings):,} ratings of {products:,} products by {users:,} users"


def _as_ratings(batch: RatingBlock) -> list[Rating]:
    columns = (batch.users.tolist(), batch.products.tolist(), batch.ratings.tolist())
    return list(map(Rating, *columns))
