"""The rows that training starts from: independent normals, scaled to unit length.

Both starts draw what Spark's ALS draws, from different generators. The one of MLlib is a stream
per block, so that a row depends on the ids that share its block; the other is counted, so that a
row depends on its own id alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partitioners import HashPartitioner
from rddals.blocks.philox import philox4x32
from rddals.blocks.xorshift import byteswap64, gaussians, longs

__all__ = ["id_start", "mllib_start"]


def id_start(ids: NDArray[np.int32], *, rank: int, seed: int, side: int) -> NDArray[np.float32]:
    """Starting factors that depend on nothing but the seed, the side and each id.

    An id starts in the same place whichever block it lives in and however many blocks there are.

    Parameters
    ----------
    ids : ndarray of int32, shape (n,)
    rank : int
    seed : int
        Taken modulo 2^64; the generator's key.
    side : int
        0 for users, 1 for products.

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


def mllib_start(
    ids: NDArray[np.int32], *, rank: int, seed: int, side: int, blocks: int
) -> NDArray[np.float32]:
    """The starting factors that MLlib draws, block by block.

    Parameters
    ----------
    ids : ndarray of int32, shape (n,)
        All ids of some hash blocks, ascending.
    rank : int
    seed : int
        As MLlib takes it, modulo 2^64.
    side : int
        0 for users, 1 for products.
    blocks : int
        Blocks of this side, of MLlib's `HashPartitioner`.

    Returns
    -------
    ndarray of float32, shape (n, rank)
    """
    rows = np.empty((len(ids), rank), dtype=np.float32)
    block_of = HashPartitioner(blocks).block_of(ids)
    for block in np.unique(block_of).tolist():
        here = block_of == block
        own_seed = byteswap64(longs(seed, 2)[side] ^ block)
        rows[here] = gaussians(own_seed, int(here.sum()) * rank).reshape(-1, rank)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    rows *= 1 / lengths.astype(np.float32)
    return rows
