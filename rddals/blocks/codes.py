"""Ratings as one byte each: stars or counts, mostly, of which few different ones occur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_CODES", "coded"]

#: Values that a byte can tell apart.
MOST_CODES = 256
#: Ratings that are looked at for values not seen so far.
SAMPLE = 4096


def coded(ratings: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """`ratings` as one byte each and the values these stand for, if so few values occur.

    Returns
    -------
    codes : ndarray of uint8, shape (n,)
        Places in `scale`; the ratings themselves if there is none.
    scale : ndarray of float32, shape (at most 256,), or None
        The values that occur, by their bits.
    """
    bits = ratings.view(np.uint32)  # which tell -0.0 from 0.0, as the digest does
    if not (bits & 0xFFFF).any():
        return _coded_by_table(ratings, (bits >> 16).astype(np.uint16))
    scale = np.unique(bits[:SAMPLE])
    while len(scale) <= MOST_CODES:
        codes = np.searchsorted(scale[:-1], bits)  # what is above all values lands on the last
        unknown = bits[scale.take(codes) != bits]
        if not len(unknown):
            return codes.astype(np.uint8), scale.view(np.float32)
        scale = np.union1d(scale, unknown[:SAMPLE])
    return ratings, None


def _coded_by_table(
    ratings: NDArray[np.float32], halves: NDArray[np.uint16]
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """The same for ratings of few binary digits, such as halves of stars: five times as fast."""
    occurs = np.zeros(1 << 16, dtype=bool)
    occurs[halves] = True
    scale = np.flatnonzero(occurs).astype(np.uint32)
    if len(scale) > MOST_CODES:
        return ratings, None
    code_of = np.zeros(1 << 16, dtype=np.uint8)
    code_of[scale] = np.arange(len(scale))
    return code_of[halves], (scale << 16).view(np.float32)
