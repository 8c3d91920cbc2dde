"""A small matrix of ratings that the documentation, docstrings and tests share.

Seven users and eight products. Ids have gaps and one is negative. User 7 has the most ratings,
product 23 is the most popular one, and product 90 has a single rating.
"""

from __future__ import annotations

import numpy as np

PRODUCTS = (10, 11, 15, 23, 42, 57, 60, 90)

TABLE = """
user   10   11   15   23   42   57   60   90
  -3    .    5    .    4    .    .    .    .
   2    1    .    .    .    5    .    .    .
   7    5    2    4    5    .    1    3    .
   8    .    .    2    .    .    4    .    .
  12    .    1    .    4    .    .    5    .
  31    3    .    .    .    .    5    .    2
  40    .    .    4    5    1    .    .    .
"""

RATINGS: tuple[tuple[int, int, float], ...] = tuple(
    (int(user), product, float(cell))
    for user, *cells in (line.split() for line in TABLE.strip().splitlines()[1:])
    for product, cell in zip(PRODUCTS, cells, strict=True)
    if cell != "."
)

USERS = tuple(sorted({user for user, _, _ in RATINGS}))


def columns() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return users, products and ratings as int32, int32 and float32 arrays of shape (n,)."""
    users, products, ratings = zip(*RATINGS, strict=True)
    return (
        np.array(users, dtype=np.int32),
        np.array(products, dtype=np.int32),
        np.array(ratings, dtype=np.float32),
    )
