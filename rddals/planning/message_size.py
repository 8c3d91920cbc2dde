"""Exact size of a message in a shuffle.

Python pickles a message as a list of one record, and Spark's Kryo serializer frames it. The
overheads were measured without compression; `tests/integration/test_planning.py` checks them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FLOAT = 4
#: Bytes that pickling adds to a message of at most 255 bytes and at most 255 rows.
PICKLE_OVERHEAD = 30
#: Bytes that Kryo adds, without the encoded length.
KRYO_OVERHEAD = 11
#: Most bytes that pickling and framing add to a message of the join.
JOIN_ENVELOPE = 400


def shuffled_bytes(rows: NDArray[np.int64], rank: int) -> NDArray[np.int64]:
    """Return the bytes of messages of the shuffle exchange in Spark's shuffle files.

    `rows` are those in each message, at least one. The bytes are for block numbers up to 255; each
    larger number takes one or two more.
    """
    payload = FLOAT * rank * rows
    pickled = payload + PICKLE_OVERHEAD
    pickled += 3 * (payload >= 1 << 8)  # longer length field
    pickled += 9 * (payload >= 1 << 16)  # separate pickle frame
    pickled += (rows >= 1 << 8).astype(np.int64) + 2 * (rows >= 1 << 16)
    lengths = np.searchsorted(np.array([1 << 7, 1 << 14, 1 << 21, 1 << 28]), pickled, side="right")
    return pickled + KRYO_OVERHEAD + 1 + lengths
