"""Real ratings, and synthetic ones with realistic degree distributions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyspark
import pytest
from numpy.typing import NDArray

from rddals import RatingBlock

__all__ = ["DATA", "in_batches", "in_time_order", "part", "planted", "ratings"]


def ratings(
    users: int = 60_000, products: int = 15_000, count: int = 4_600_000, seed: int = 7
) -> RatingBlock:
    """Generate about 4.4 million ratings by 60,000 users of 15,000 products.

    User degrees are lognormal, and product popularity is a power law. A rating is a planted
    rank-8 score plus noise, rounded to half stars.

    Parameters
    ----------
    users, products : int
        Number of users and of products.
    count : int
        Number of ratings drawn. Duplicates are dropped, which removes a few per cent.
    seed : int
        Seed of the random generator.
    """
    random = np.random.default_rng(seed)
    activity = random.lognormal(sigma=1.0, size=users)
    degrees = np.maximum(5, activity / activity.sum() * count).astype(np.int64)
    popularity = 1 / (np.arange(products) + 50.0) ** 0.9
    cells = np.unique(
        np.repeat(np.arange(users), degrees) * products
        + random.choice(products, size=degrees.sum(), p=popularity / popularity.sum())
    )
    cells = random.permutation(cells)
    user, product = np.divmod(cells, products)
    taste = _unit_rows(random, users)
    kind = _unit_rows(random, products)
    score = 3.5 + 2.0 * np.einsum("ij,ij->i", taste[user], kind[product])
    score += random.normal(scale=0.7, size=len(cells))
    stars = np.clip(np.round(2 * score) / 2, 0.5, 5.0)
    return RatingBlock.from_columns(user, product, stars)


def _unit_rows(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    rows = random.normal(size=(count, 8))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def from_lines(path: Path, separator: str) -> RatingBlock:
    rows = (line.split(separator)[:3] for line in path.read_text().splitlines())
    return RatingBlock.from_rows(list(map(tuple, rows)))


def sample() -> RatingBlock:
    folder = Path(pyspark.__file__).parent / "data/mllib/als"
    return from_lines(folder / "sample_movielens_ratings.txt", "::")


def movielens() -> RatingBlock:
    if "RDDALS_ML100K" not in os.environ:
        pytest.skip("RDDALS_ML100K is not set to the path of MovieLens 100K")
    return from_lines(Path(os.environ["RDDALS_ML100K"]), "\t")


def in_time_order() -> RatingBlock:
    """Return MovieLens 100K in order of its timestamps."""
    if "RDDALS_ML100K" not in os.environ:
        pytest.skip("RDDALS_ML100K is not set to the path of MovieLens 100K")
    columns = np.loadtxt(Path(os.environ["RDDALS_ML100K"]), dtype=np.int64)
    user, product, stars, _ = columns[np.argsort(columns[:, 3], kind="stable")].T
    return RatingBlock.from_columns(user, product, stars)


def part(block: RatingBlock, start: int, stop: int | None = None) -> RatingBlock:
    """Return a slice of the ratings."""
    rows = slice(start, stop)
    return RatingBlock(block.users[rows], block.products[rows], block.ratings[rows])


def in_batches(block: RatingBlock, size: int) -> list[RatingBlock]:
    """Split the ratings into batches of `size`. The last batch may be smaller."""
    return [part(block, start, start + size) for start in range(0, len(block), size)]


def synthetic() -> RatingBlock:
    return ratings(users=20_000, products=5_000, count=1_050_000)


def planted(
    communities: int = 32, users: int = 6_400, products: int = 3_200, mean: int = 25
) -> RatingBlock:
    """Generate equal communities; nine ratings in ten stay within the user's community."""
    random = np.random.default_rng(1)
    user = np.repeat(np.arange(users), random.poisson(mean, users))
    of_user, of_product = random.permutation(users), random.permutation(products)
    members = np.argsort(of_product % communities, kind="stable").reshape(communities, -1)
    own_product = members[
        of_user[user] % communities, random.integers(0, members.shape[1], len(user))
    ]
    random_product = random.integers(0, products, len(user))
    product = np.where(random.random(len(user)) < 0.9, own_product, random_product)
    stars = random.integers(1, 6, len(user)).astype(np.float32)
    return RatingBlock.from_columns(user, product, stars)


DATA: dict[str, Callable[[], RatingBlock]] = {
    "bundled sample": sample,
    "MovieLens 100K": movielens,
    "1 million synthetic": synthetic,
}
