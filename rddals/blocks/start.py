"""Initial factor rows: independent normals, scaled to unit length.

Both functions draw from the same distribution as Spark's ALS. MLlib's generator is a stream per
block, so a row depends on the ids that share its block. The other generator is counter-based, so a
row depends on its own id only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from partitioners import HashPartitioner
from rddals.blocks.philox import philox4x32
from rddals.blocks.xorshift import byteswap64, gaussians, longs


def id_start(ids: NDArray[np.int32], *, rank: int, seed: int, side: int) -> NDArray[np.float32]:
    """Return initial factors (n, rank) that depend only on the seed, the side and each id.

    An id has the same row in any block, for any number of blocks. The seed counts modulo 2^64.
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
    """Return the initial factors (n, rank) that MLlib draws, block by block.

    `ids` are all ids of one or more hash blocks, in ascending order; `blocks` is the number of
    blocks of this side in MLlib's `HashPartitioner`. The seed counts modulo 2^64.
    """
    rows = np.empty((len(ids), rank), dtype=np.float32)
    block_of = HashPartitioner(blocks).block_of(ids)
    for block in np.unique(block_of).tolist():
        mask = block_of == block
        block_seed = byteswap64(longs(seed, 2)[side] ^ block)
        rows[mask] = gaussians(block_seed, int(mask.sum()) * rank).reshape(-1, rank)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    rows *= 1 / lengths.astype(np.float32)
    return rows
