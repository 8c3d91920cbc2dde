"""The command demo: a training on PySpark's sample ratings, step by step."""

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
from rddals.cli.options import Common, Training
from rddals.cli.output import Output
from rddals.cli.report import history_document, kernels_document, links_document, number
from rddals.cli.split import held_out, select
from rddals.exchange.choice import bytes_moved, readable_bytes
from rddals.rdds.ingest import rating_source, read_batches
from rddals.sources.readers import read_ratings

TRAINING = Training(rank=8, iterations=10, lambda_=0.1, blocks=4, holdout=0.2, seed=1)
#: Width of the longest bar, in characters.
BAR_WIDTH = 40


def run(common: Common, output: Output) -> None:
    """Train on the sample ratings and print every step."""
    sample = Path(pyspark.__file__).parent / "data/mllib/als/sample_movielens_ratings.txt"
    if not sample.exists():
        raise InputError(f"{sample} does not exist; install PySpark from PyPI, which has it")
    with common.session(output) as spark:
        output.result(_run(spark, output, sample))


def _run(spark: SparkSession, output: Output, sample: Path) -> dict[str, Any]:
    with output.busy("reading the ratings"):
        ratings = read_ratings(spark, [f"file://{sample}"])
        # The sample fits on the driver; no other command collects ratings.
        batches = rating_source(ratings.frame).mapPartitionsWithIndex(read_batches).collect()
        sample_ratings = RatingBlock.concatenate(batches)
        mask = held_out(
            sample_ratings.users, sample_ratings.products, TRAINING.holdout, TRAINING.seed
        )
        train_block, test_block = select(sample_ratings, ~mask), select(sample_ratings, mask)
        training, testing = (
            spark.sparkContext.parallelize([block]) for block in (train_block, test_block)
        )
    output.section("1 Ratings", "Each rating is a user, a product and a number, stored in columns.")
    output.fact("read from", f"pyspark/data/mllib/als/{sample.name}")
    output.fact("format", ratings.description)
    output.fact("training", _counted(train_block))
    output.fact("held out", f"{_counted(test_block)}, by a hash of user and product")
    blocks = _link_blocks(train_block)
    _print_blocks(output, blocks)

    events: list[Any] = []
    with output.busy("training"):
        model = fit(training, TRAINING, (events.append,))
    links = next(event for event in events if isinstance(event, LinksBuilt))
    _print_bytes(output, links)
    _print_losses(output, model.history)

    with output.busy("training MLlib on the same ratings"):
        mllib_model = MLlibALS.train(
            training.flatMap(_as_ratings),
            TRAINING.rank,
            TRAINING.iterations,
            TRAINING.lambda_,
            TRAINING.blocks,
            seed=TRAINING.seed,
        )
        rmse = {
            name: measure(trained_model, testing).errors.rmse
            for name, trained_model in (("MLlib", mllib_model), ("rddals", model))
        }
    mean_rmse = float(np.sqrt(np.mean((test_block.ratings - train_block.ratings.mean()) ** 2)))
    output.section(
        "5 Held-out error",
        f"RMSE of {len(test_block)} held-out ratings. Both models have the same training ratings\n"
        "and settings; the same seed and blocks give the same model, up to rounding.",
    )
    output.table(
        ("predicted by", "RMSE"),
        [
            ("mean of the training ratings", number(mean_rmse)),
            *((name, number(error)) for name, error in rmse.items()),
        ],
    )

    user = int(np.bincount(test_block.users).argmax())
    with output.busy("recommending"):
        best = model.recommendProducts(user, 10)
    _print_recommendations(output, user, best, train_block, test_block)
    return {
        "input": str(sample),
        "settings": TRAINING.describe(),
        **links_document(links),
        "held_out_ratings": len(test_block),
        "blocks": blocks,
        "kernels": kernels_document(model.history),
        "history": history_document(model.history),
        "held_out_rmse": {**rmse, "mean rating": mean_rmse},
        "user": user,
        "recommendations": [{"product": r.product, "prediction": r.rating} for r in best],
    }


def _link_blocks(ratings: RatingBlock) -> list[dict[str, Any]]:
    """Compute the sizes of the link blocks, which the driver builds as the workers do."""
    partitioner = HashPartitioner(TRAINING.blocks)
    sizes = []
    for side, name in enumerate(("users", "products")):
        blocks = partitioner.block_of(ratings.users if side == USERS else ratings.products)
        for block in range(TRAINING.blocks):
            links = link(block, select(ratings, blocks == block), side, partitioner)
            sizes.append(
                {
                    "block": f"{name} {block}",
                    "ids": len(links.in_block.ids),
                    "ratings": len(links.in_block.ratings),
                    "rows received": len(links.in_block.source_ids),
                    "rows sent": int(links.out_block.counts.sum()),
                }
            )
    return sizes


def _print_blocks(output: Output, blocks: Sequence[dict[str, Any]]) -> None:
    output.section(
        "2 Link blocks",
        "An in-block lists the ids that a block solves and the rows that it receives;\n"
        "an out-block lists the rows that it sends to each block of the other side.",
    )
    output.table(list(blocks[0]), [[str(value) for value in block.values()] for block in blocks])


def _print_bytes(output: Output, links: LinksBuilt) -> None:
    output.section(
        "3 Exchange",
        "In each half-step an exchange brings every block the factor rows that it needs.\n"
        "All exchanges give the same model; they differ in the bytes that they move.",
    )
    bytes_sent = [bytes_moved(sizes) for sizes in links.sizes]
    exchanges = list(bytes_sent[0])
    rows = [
        (half_step, *(readable_bytes(sent[exchange]) for exchange in exchanges))
        for half_step, sent in zip(("users send", "products send"), bytes_sent, strict=True)
    ]
    rows.append(
        (
            "iteration",
            *(readable_bytes(sum(sent[exchange] for sent in bytes_sent)) for exchange in exchanges),
        )
    )
    output.table(("half-step", *exchanges), rows)
    output.fact("chosen", f"{links.exchange.exchange}: {links.exchange.reason}")


def _print_losses(output: Output, history: Sequence[HalfStepDone]) -> None:
    output.section(
        "4 Alternate",
        "An iteration solves products from the users' factors, then users from the products'.",
    )
    iterations = history_document(history)
    full = "\u2501" if output.terminal else "#"
    rows = [
        (
            str(step["iteration"]),
            f"{step['loss']:,.1f}",
            f"{step['seconds']:.2f} s",
            full * round(BAR_WIDTH * step["loss"] / iterations[0]["loss"]),
        )
        for step in iterations
    ]
    output.table(("iteration", "loss", "time", ""), rows, left=(3,), style={3: "cyan"})


def _print_recommendations(
    output: Output,
    user: int,
    best: Sequence[Rating],
    train_block: RatingBlock,
    test_block: RatingBlock,
) -> None:
    output.section("6 Recommend", f"The ten products with the highest predictions for user {user}.")
    known = {
        product: f"{rating:g}{note}"
        for block, note in ((train_block, ""), (test_block, ", held out"))
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
