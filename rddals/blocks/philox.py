"""Philox, a counter-based random number generator with random access to its stream."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Generate random words with Philox4x32-10, in the shape (4, ...) of the counters.

    The key is two numbers below 2^32.

    References
    ----------
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    c0, c1, c2, c3 = (word.astype(np.uint64) for word in counter)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = key
    for _ in range(10):
        product_0 = c0 * np.uint64(0xD2511F53)
        product_2 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product_2 >> half) ^ c1 ^ np.uint64(k0),
            product_2 & low,
            (product_0 >> half) ^ c3 ^ np.uint64(k1),
            product_0 & low,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)
