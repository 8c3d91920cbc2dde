"""Block numbers from a partitioner, checked against its contract."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.errors import SettingError


def checked_blocks(partitioner: Partitioner, ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the block of each id; raise `SettingError` if the partitioner breaks its contract."""
    try:
        blocks = np.asarray(partitioner.block_of(ids))
    except (TypeError, ValueError) as error:  # raised by rddals' own partitioners, with a remedy
        raise SettingError(f"{partitioner!r}: {error}") from error
    except Exception as error:
        raise SettingError(
            f"{partitioner!r} raised {error!r}. block_of must return a block for every id."
        ) from error
    if blocks.shape != ids.shape or blocks.dtype.kind not in "iu":
        raise SettingError(
            f"{partitioner!r} returned {blocks.dtype} of shape {blocks.shape} for {len(ids)} ids. "
            "block_of must return one integer per id."
        )
    outside = (blocks < 0) | (blocks >= partitioner.num_blocks)
    if outside.any():
        first = int(np.argmax(outside))
        raise SettingError(
            f"{partitioner!r} placed id {ids[first]} in block {blocks[first]}. "
            f"block_of must return blocks from 0 to {partitioner.num_blocks - 1}."
        )
    return blocks.astype(np.int32, copy=False)
