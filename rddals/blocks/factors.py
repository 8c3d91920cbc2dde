"""Dense factor rows, and the rows that training starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FactorBlock", "philox4x32", "seeded_rows"]


@dataclass(frozen=True, slots=True)
class FactorBlock:
    """The factors of one block.

    Attributes
    ----------
    ids : ndarray of int32, shape (n,)
        Ascending.
    rows : ndarray of float32, shape (n, rank)
        ``rows[i]`` is the factor of ``ids[i]``.
    """

    ids: NDArray[np.int32]
    rows: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.ids) != len(self.rows):
            raise ValueError(f"{len(self.ids)} ids do not fit rows of shape {self.rows.shape}")

    def find(self, ids: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Positions of `ids` in this block, and which of them are here at all."""
        positions = np.searchsorted(self.ids, ids)
        if not len(self.ids):
            return positions, np.zeros(len(ids), dtype=bool)
        positions = np.minimum(positions, len(self.ids) - 1)
        return positions, self.ids[positions] == ids


def seeded_rows(seed: int, side: int, ids: NDArray[np.int32], rank: int) -> NDArray[np.float32]:
    """Starting factors that depend on nothing but the seed, the side and each id.

    Rows are independent standard normals scaled to unit length, as in Spark's ALS, but drawn
    from a counter-based generator, so that an id starts in the same place whichever block it
    lives in and however many blocks there are.

    Parameters
    ----------
    seed : int
        Taken modulo 2^64; the generator's key.
    side : int
        0 for users, 1 for products.
    ids : ndarray of int32, shape (n,)
    rank : int

    Returns
    -------
    ndarray of float32, shape (n, rank)
    """
    quads = -(-rank // 4)
    counter = np.zeros((4, len(ids), quads), dtype=np.uint32)
    counter[0] = np.arange(quads, dtype=np.uint32)
    counter[1] = ids.astype(np.int32).view(np.uint32)[:, None]
    counter[2] = side
    words = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))

    # Box-Muller: two uniforms in (0, 1] and [0, 1) make two normals.
    uniform = words.astype(np.float64) * 2.0**-32
    radius = np.sqrt(-2.0 * np.log(uniform[0::2] + 2.0**-32))
    angle = 2.0 * np.pi * uniform[1::2]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    # (2, n, quads, 2) -> (n, 4 * quads) -> (n, rank)
    rows = normal.transpose(1, 2, 0, 3).reshape(len(ids), 4 * quads)[:, :rank]
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32)


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Philox4x32-10, a counter-based random number generator, vectorised.

    Parameters
    ----------
    counter : ndarray of uint32, shape (4, ...)
    key : pair of int
        Each below 2^32.

    Returns
    -------
    ndarray of uint32, shape (4, ...)

    References
    ----------
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    c0, c1, c2, c3 = (word.astype(np.uint64) for word in counter)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = key
    for _ in range(10):
        left = c0 * np.uint64(0xD2511F53)
        right = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (right >> half) ^ c1 ^ np.uint64(k0),
            right & low,
            (left >> half) ^ c3 ^ np.uint64(k1),
            left & low,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)
