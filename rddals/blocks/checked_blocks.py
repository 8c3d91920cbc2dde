"""Block numbers from a partitioner, checked against its contract, and between processes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from partitioners import Partitioner
from rddals.errors import SettingError

#: Ids per block that the driver places too, to compare.
SAMPLE = 16


def checked_blocks(partitioner: Partitioner, ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the block of each id; raise `SettingError` if the partitioner breaks its contract."""
    try:
        blocks = np.asarray(partitioner.block_of(ids))
    except (TypeError, ValueError) as error:  # raised by rddals' own partitioners, with a remedy
        raise SettingError(f"{partitioner!r}: {error}") from error
    except Exception as error:
        raise SettingError(
            f"{partitioner!r} raised {type(error).__name__}: {error}. block_of must return a block "
            "for every id."
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


def sample_of(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return about `SAMPLE` of the ids of a block, for `check_placement`."""
    sample: NDArray[np.int32] = ids[:: max(1, len(ids) // SAMPLE)].copy()
    return sample


def check_placement(
    partitioner: Partitioner, samples: Iterable[tuple[int, NDArray[np.int32]]]
) -> None:
    """Raise `SettingError` unless the driver places ids in the blocks where workers placed them.

    `samples` has pairs of a block and some of its ids. The driver looks up an id where it places
    it, so it would not find these.
    """
    for block, ids in samples:
        blocks = checked_blocks(partitioner, ids)
        if (blocks != block).any():
            first = int(np.argmax(blocks != block))
            raise SettingError(
                f"{partitioner!r} places id {ids[first]} in block {block} on a worker, and in "
                f"block {blocks[first]} on the driver. A partitioner must give the same block in "
                "every process. Python's hash() of text does not: use zlib.crc32(text.encode())."
            )
