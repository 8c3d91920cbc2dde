"""Compact ratings for a shuffle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.codes import encode_ratings
from rddals.blocks.ratings import RatingBlock


@dataclass(frozen=True, slots=True)
class PackedRatings:
    """Batch of ratings, with ids as offsets from the lowest id and ratings as codes.

    A rating takes five bytes instead of twelve if ids span less than 65536 and at most 256 ratings
    are distinct.

    Attributes
    ----------
    lowest : pair of int
        Lowest user id and lowest product id.
    users, products : ndarray of uint16, shape (n,)
        Offsets from the lowest id. If ids span 65536 or more: the ids themselves, as int32.
    codes : ndarray of uint8 or float32, shape (n,)
    scale : ndarray of float32, or None
        Encoded ratings, as returned by `rddals.blocks.codes.encode_ratings`.
    """

    lowest: tuple[int, int]
    users: NDArray[Any]
    products: NDArray[Any]
    codes: NDArray[Any]
    scale: NDArray[np.float32] | None

    @classmethod
    def of(cls, batch: RatingBlock) -> PackedRatings:
        """Pack a batch."""
        lowest_user, users = _offsets(batch.users)
        lowest_product, products = _offsets(batch.products)
        return cls((lowest_user, lowest_product), users, products, *encode_ratings(batch.ratings))

    def take(self, rows: NDArray[np.intp]) -> PackedRatings:
        """Return the ratings at positions `rows`."""
        return PackedRatings(
            self.lowest,
            self.users.take(rows),
            self.products.take(rows),
            self.codes.take(rows),
            self.scale,
        )

    def unpacked(self) -> RatingBlock:
        """Unpack the batch."""
        users, products = (
            np.add(ids, lowest, dtype=np.int32)
            for ids, lowest in zip((self.users, self.products), self.lowest, strict=True)
        )
        ratings = self.codes if self.scale is None else self.scale.take(self.codes)
        return RatingBlock(users, products, ratings)


def _offsets(ids: NDArray[np.int32]) -> tuple[int, NDArray[Any]]:
    """Return the lowest id and the offsets from it, or 0 and the ids if they span too much."""
    if not len(ids):
        return 0, ids
    lowest = int(ids.min())
    if int(ids.max()) - lowest >= 1 << 16:
        return 0, ids
    return lowest, np.subtract(ids, lowest, dtype=np.int32).astype(np.uint16)
