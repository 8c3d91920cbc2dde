"""A stream's learning without Spark: the same steps, over one block of either side.

What a batch teaches depends on neither blocks nor exchange, so this shows what settings and sizes
of batches do to the error, in a small part of the time.
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
    """What `rddals.StreamingALS` learns."""

    def __init__(self, **settings: object) -> None:
        self.settings = StreamSettings.checked(
            **{"rank": 10, "iterations": 1, "lambda_": None, "seed": 42} | settings
        )
        nothing = np.empty((0, state_width(self.settings.rank)), dtype=np.float32)
        self.sides = [FactorBlock(np.empty(0, np.int32), nothing)] * 2
        self.total, self.count = Fraction(0), 0
        self.ratings = RatingBlock.empty()

    @property
    def mean(self) -> float:
        """The mean of all ratings so far."""
        return float(self.total / self.count) if self.count else 0.0

    def predict(self, block: RatingBlock) -> NDArray[np.float64]:
        """Predictions as they are."""
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
        kept = list(self.sides)
        shown = lookup_step(self.settings, second, links[second], [kept[second]], None)
        kept[second] = sent = shown.kept
        for iteration in range(1, self.settings.iterations + 1):
            for side in (first, second):
                step = partial(update_step, self.settings, side, iteration, side == first, means)
                in_block = links[side].in_block
                received = sent.rows[sent.find(in_block.source_ids)[0]]
                done = step(links[side], [kept[side]], received)
                kept[side], sent = done.kept, done.sent or done.kept
        for side in SIDES:
            older = self.sides[side].without(kept[side].ids)
            width = state_width(self.settings.rank)
            self.sides[side] = FactorBlock.merged([older, kept[side]], width)


def rmse(errors: NDArray[np.float64]) -> float:
    """The root of the mean square, to four digits."""
    return round(float(np.sqrt(np.mean(np.square(errors)))), 4)
