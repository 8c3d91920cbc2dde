"""How many bytes a message takes in a shuffle, to the byte.

A message is pickled by Python, as a list of one record, and framed by Spark's Kryo serializer.
What both add was counted, with compression off; `tests/integration/test_planning.py` counts again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["JOIN_ENVELOPE", "shuffled_bytes"]

FLOAT = 4
#: What pickling adds to a message of at most 255 bytes in at most 255 rows.
PICKLED = 30
#: What Kryo adds, beside the length of what it frames.
FRAMED = 11
#: At most, what pickling and framing add to a message of the join.
JOIN_ENVELOPE = 400


def shuffled_bytes(rows: NDArray[np.int64], rank: int) -> NDArray[np.int64]:
    """Bytes that messages of the shuffle exchange take in Spark's shuffle files.

    Parameters
    ----------
    rows : ndarray of int64
        Rows in each message, all above zero.
    rank : int

    Returns
    -------
    ndarray of int64, of the shape of `rows`
        For blocks numbered up to 255; each number above takes one or two bytes more.
    """
    payload = FLOAT * rank * rows
    pickled = payload + PICKLED
    pickled += 3 * (payload >= 1 << 8)  # a longer length
    pickled += 9 * (payload >= 1 << 16)  # a frame of its own
    pickled += (rows >= 1 << 8).astype(np.int64) + 2 * (rows >= 1 << 16)
    lengths = np.searchsorted(np.array([1 << 7, 1 << 14, 1 << 21, 1 << 28]), pickled, side="right")
    framed: NDArray[np.int64] = pickled + FRAMED + 1 + lengths
    return framed
