"""Streaming ALS without Spark: the same steps with one block per side.

The result of a batch does not depend on blocks or exchange, so this measures the effect of settings
and batch sizes on the error in a fraction of the time.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np
from numpy.typing import NDArray

from partitioners import HashPartitioner
from rddals import RatingBlock
from rddals.blocks.exact import exact_sum
from rddals.blocks.factors import FactorBlock
from rddals.blocks.links import LinkBlock, link
from rddals.config import StreamSettings
from rddals.streaming.batch import ORDER
from rddals.streaming.block_step import Means, lookup_step, update_step
from rddals.streaming.incremental_links import incremental_block
from rddals.streaming.rows import state_width

__all__ = ["LocalStream", "rmse"]

ONE = HashPartitioner(1)
SIDES = (0, 1)


class LocalStream:
    """In-memory equivalent of `rddals.StreamingALS`."""

    def __init__(self, **settings: object) -> None:
        self.settings = StreamSettings.checked(
            **{"rank": 10, "iterations": 1, "lambda_": None, "seed": 42} | settings
        )
        no_rows = np.empty((0, state_width(self.settings.rank)), dtype=np.float32)
        self.sides = [FactorBlock(np.empty(0, np.int32), no_rows)] * 2
        self.total, self.count = Fraction(0), 0
        self.ratings = RatingBlock.empty()

    @property
    def mean(self) -> float:
        """Mean of all ratings so far."""
        return float(self.total / self.count) if self.count else 0.0

    def predict(self, block: RatingBlock) -> NDArray[np.float64]:
        """Return unclipped predictions."""
        width = state_width(self.settings.rank)
        users, products = (
            FactorBlock.latest([side], ids, width)[0].astype(np.float64)
            for side, ids in zip(self.sides, (block.users, block.products), strict=True)
        )
        rank = self.settings.rank
        biased = self.mean + users[:, rank] + products[:, rank]
        predicted: NDArray[np.float64] = biased + np.einsum(
            "ij,ij->i", users[:, :rank], products[:, :rank]
        )
        return predicted

    def learn(self, batch: RatingBlock) -> None:
        """Learn one batch."""
        before = self.mean
        self.total += exact_sum(batch.ratings)
        self.count += len(batch)
        means = Means(before, self.mean)
        links: list[LinkBlock] = [link(0, batch, side, ONE) for side in SIDES]
        if self.settings.update == "als":
            self.ratings = RatingBlock.concatenate([self.ratings, batch])
            touched = np.unique(batch.users), np.unique(batch.products)
            links = [
                incremental_block(0, self.ratings, side, ONE, touched, of_batch.in_block)
                for side, of_batch in enumerate(links)
            ]
        first, second = ORDER[self.settings.update]
        factors = list(self.sides)
        lookup = lookup_step(self.settings, second, links[second], [factors[second]], None)
        factors[second] = sent = lookup.kept
        for iteration in range(1, self.settings.iterations + 1):
            for side in (first, second):
                step = partial(update_step, self.settings, side, iteration, side == first, means)
                in_block = links[side].in_block
                received = sent.rows[sent.find(in_block.source_ids)[0]]
                result = step(links[side], [factors[side]], received)
                factors[side], sent = result.kept, result.sent or result.kept
        for side in SIDES:
            older = self.sides[side].without(factors[side].ids)
            width = state_width(self.settings.rank)
            self.sides[side] = FactorBlock.merged([older, factors[side]], width)


def rmse(errors: NDArray[np.float64]) -> float:
    """Return the root mean square, rounded to four digits."""
    return round(float(np.sqrt(np.mean(np.square(errors)))), 4)
