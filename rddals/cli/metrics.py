"""Quality of a model on ratings, held-out ones for example.

Ratings and users' factors are shuffled to blocks of users. Products' factors are broadcast: 4 bytes
times rank per product, to every executor. The model may be from rddals or MLlib.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
from pyspark import RDD, Broadcast

from partitioners import HashPartitioner
from rddals.blocks.factors import FactorBlock
from rddals.blocks.ratings import RatingBlock
from rddals.cli.ranking import RankingSums, rank_block
from rddals.cli.split import select
from rddals.errors import RddalsError
from rddals.kernels.topk import pair_scores
from rddals.rdds.factors import rows_by_block
from rddals.rdds.ingest import read_batches


@dataclass(frozen=True, slots=True)
class PredictionErrors:
    """Sums of errors over the user-product pairs that the model knows.

    Attributes
    ----------
    known, unknown : int
        Pairs with and without a prediction.
    squared, absolute : float
        Sums of squared and of absolute errors.
    """

    known: int = 0
    unknown: int = 0
    squared: float = 0.0
    absolute: float = 0.0

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared error; None without a known pair."""
        return math.sqrt(self.squared / self.known) if self.known else None

    @property
    def mae(self) -> float | None:
        """Mean absolute error; None without a known pair."""
        return self.absolute / self.known if self.known else None

    def __add__(self, other: PredictionErrors) -> PredictionErrors:
        return PredictionErrors(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self))
        )


@dataclass(frozen=True, slots=True)
class Quality:
    """Result of `measure`."""

    errors: PredictionErrors
    ranking: RankingSums | None


def measure(
    model: Any, ratings: RDD[Any], *, top: int | None = None, seen: RDD[Any] | None = None
) -> Quality:
    """Compare the predictions of a model, of rddals or MLlib, with ratings of `rating_source`.

    With `top`, also rank that many recommendations per user, without the products in `seen`, such
    as the training ratings. A rating that cannot be read raises `RatingError` or `RatingTypeError`.
    """
    sc = ratings.context
    features = model.userFeatures()
    split_by_block = HashPartitioner(max(sc.defaultParallelism, features.getNumPartitions()))
    factors = features.mapPartitions(partial(rows_by_block, split_by_block, model.rank))
    sources = [factors.mapValues(lambda rows: ("factors", rows))]
    for kind, source in (("rated", ratings), ("seen", seen)):
        if source is not None:
            sources.append(source.mapPartitionsWithIndex(partial(_pieces, kind, split_by_block)))
    products = sc.broadcast(_collected(model.productFeatures(), model.rank))
    try:
        pieces = sc.union(sources).partitionBy(split_by_block.num_blocks)
        parts = pieces.mapPartitions(partial(_measure_block, products, model.rank, top)).collect()
    finally:
        products.destroy()
    for part in parts:
        if isinstance(part, RddalsError):
            raise part
    errors = sum((part.errors for part in parts), PredictionErrors())
    if top is None:
        return Quality(errors, None)
    return Quality(errors, sum((part.ranking for part in parts), RankingSums(top)))


def _measure_block(
    products: Broadcast[FactorBlock], rank: int, top: int | None, records: Iterable[Any]
) -> Iterator[Quality | RddalsError]:
    pieces: dict[str, list[Any]] = {"factors": [], "rated": [], "seen": [], "error": []}
    for _, (kind, piece) in records:
        pieces[kind].append(piece)
    if pieces["error"]:
        yield pieces["error"][0]
        return
    users = FactorBlock.merged(pieces["factors"], rank)
    ratings = RatingBlock.concatenate(pieces["rated"])
    ranking = None
    if top is not None:
        seen = RatingBlock.concatenate(pieces["seen"])
        ranking = rank_block(users, products.value, ratings, seen, top)
    yield Quality(_errors(users, products.value, ratings), ranking)


def _errors(users: FactorBlock, products: FactorBlock, ratings: RatingBlock) -> PredictionErrors:
    user_rows, user_known = users.find(ratings.users)
    product_rows, product_known = products.find(ratings.products)
    known = user_known & product_known
    predictions = pair_scores(users.rows[user_rows[known]], products.rows[product_rows[known]])
    errors = predictions - ratings.ratings[known]
    count = len(errors)
    return PredictionErrors(
        count, len(known) - count, float(errors @ errors), float(np.abs(errors).sum())
    )


def _pieces(
    kind: str, split_by_block: HashPartitioner, partition: int, elements: Iterable[Any]
) -> Iterator[tuple[int, tuple[str, Any]]]:
    try:
        for batch in read_batches(partition, elements):
            blocks = split_by_block.block_of(batch.users)
            for block in np.unique(blocks).tolist():
                yield block, (kind, select(batch, blocks == block))
    except RddalsError as error:
        # Returned and not raised: Spark would wrap it in a Java traceback.
        yield 0, ("error", error)


def _collected(features: RDD[tuple[int, Any]], rank: int) -> FactorBlock:
    blocks = features.mapPartitions(partial(rows_by_block, HashPartitioner(1), rank)).values()
    return FactorBlock.merged(blocks.collect(), rank)
