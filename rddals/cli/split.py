"""Deterministic split of ratings into a training and a held-out part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners.splitmix import GOLDEN_GAMMA, mix
from rddals.blocks.ratings import RatingBlock
from rddals.rdds.ingest import read_batches


def held_out(
    users: NDArray[np.int32], products: NDArray[np.int32], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Return which ratings are held out: about a `fraction` of the pairs, below 1, by a hash.

    All ratings of a pair are on the same side. The split does not depend on the order or location
    of ratings, unlike draws from a random generator, which differ each time Spark reads them.
    """
    pairs = users.view(np.uint32).astype(np.uint64) << np.uint64(32) | products.view(np.uint32)
    key = _mixed(np.array([seed % 2**64], dtype=np.uint64))
    return _mixed(_mixed(pairs) ^ key) < np.uint64(fraction * 2**64)


def select(ratings: RatingBlock, rows: NDArray[np.bool_]) -> RatingBlock:
    """Return the ratings of the selected rows."""
    return RatingBlock(ratings.users[rows], ratings.products[rows], ratings.ratings[rows])


def split(source: RDD[Any], fraction: float, seed: int) -> tuple[RDD[Any], RDD[Any]]:
    """Return training and held-out ratings in columns; computing either reads the source once."""
    training, testing = (
        source.mapPartitionsWithIndex(partial(_select_part, fraction, seed, is_held_out))
        for is_held_out in (False, True)
    )
    return training, testing


def _select_part(
    fraction: float, seed: int, is_held_out: bool, partition: int, elements: Iterable[Any]
) -> Iterator[RatingBlock]:
    for batch in read_batches(partition, elements):
        rows = held_out(batch.users, batch.products, fraction, seed) == is_held_out
        yield select(batch, rows)


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = words + GOLDEN_GAMMA
    mix(mixed)
    return mixed
