"""Ratings in few bytes, for when they move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.codes import coded
from rddals.blocks.ratings import RatingBlock

__all__ = ["PackedRatings"]


@dataclass(frozen=True, slots=True)
class PackedRatings:
    """A batch of ratings: of ids what they are above the lowest, and ratings as codes.

    Five bytes a rating where ids lie within 65536 of each other and few ratings differ, instead
    of twelve.

    Attributes
    ----------
    lowest : pair of int
        Of the users, and of the products.
    users, products : ndarray of uint16, shape (n,)
        Of int32 and from 0 if the range is longer.
    codes : ndarray of uint8 or float32, shape (n,)
    scale : ndarray of float32, or None
        As `rddals.blocks.codes.coded` gives them.
    """

    lowest: tuple[int, int]
    users: NDArray[Any]
    products: NDArray[Any]
    codes: NDArray[Any]
    scale: NDArray[np.float32] | None

    @classmethod
    def of(cls, batch: RatingBlock) -> PackedRatings:
        """Pack a batch."""
        lowest_user, users = _above(batch.users)
        lowest_product, products = _above(batch.products)
        return cls((lowest_user, lowest_product), users, products, *coded(batch.ratings))

    def take(self, rows: NDArray[np.intp]) -> PackedRatings:
        """Some of them."""
        return PackedRatings(
            self.lowest,
            self.users.take(rows),
            self.products.take(rows),
            self.codes.take(rows),
            self.scale,
        )

    def unpacked(self) -> RatingBlock:
        """The batch, as it was."""
        users, products = (
            np.add(ids, lowest, dtype=np.int32)
            for ids, lowest in zip((self.users, self.products), self.lowest, strict=True)
        )
        ratings = self.codes if self.scale is None else self.scale.take(self.codes)
        return RatingBlock(users, products, ratings)


def _above(ids: NDArray[np.int32]) -> tuple[int, NDArray[Any]]:
    """The lowest id, and what all are above it."""
    if not len(ids):
        return 0, ids
    lowest = int(ids.min())
    if int(ids.max()) - lowest >= 1 << 16:
        return 0, ids
    return lowest, np.subtract(ids, lowest, dtype=np.int32).astype(np.uint16)
