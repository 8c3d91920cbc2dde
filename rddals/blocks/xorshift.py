"""Spark's `XORShiftRandom`, and the normals that Java draws from it.

The stream is sequential: each state is computed from the previous one. But a step consists of
shifts and exclusive ors, which are linear over the integers modulo 2, so n steps are one 64 x 64
matrix of bits. Many lanes, each starting where the previous one ends, are therefore stepped
together, and their concatenated outputs are the stream.

References
----------
Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003. Marsaglia and Bray, "A
convenient method for generating normal variables", SIAM Review 6(3), 1964 (the polar method, as in
the documentation of ``java.util.Random.nextGaussian``).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1
#: Seed of Scala's hash of arrays, with which Spark scrambles seeds.
ARRAY_SEED = 0x3C074A61
#: Base-2 logarithm of the steps per lane, a multiple of the four draws that two normals take.
LOG_STEPS = 6
#: Base-2 logarithm of the most lanes, whose states fit the first-level cache.
MAX_LOG_LANES = 12


def longs(seed: int, count: int) -> list[int]:
    """Return the first `count` draws of ``nextLong``, modulo 2^64."""
    draws, _ = _stream(hash_seed(seed), 0)
    words = (draws[: 2 * count] & np.uint64(MASK32)).tolist()
    # The low half is signed, so a negative one borrows from the high half.
    return [
        ((high << 32) + low - ((low >> 31) << 32)) & MASK64
        for high, low in zip(words[0::2], words[1::2], strict=True)
    ]


def gaussians(seed: int, count: int) -> NDArray[np.float64]:
    """Return the first `count` draws of ``nextGaussian``; the seed counts modulo 2^64."""
    normals = np.empty(count)
    filled, state = 0, hash_seed(seed)
    while filled < count:
        # 4 draws give 2 normals with probability pi / 4.
        needed = int((count - filled) * 2.6)
        log_lanes = min(max(0, needed >> LOG_STEPS).bit_length(), MAX_LOG_LANES)
        draws, state = _stream(state, log_lanes)
        batch = _polar(draws)[: count - filled]
        normals[filled : filled + len(batch)] = batch
        filled += len(batch)
    return normals


def byteswap64(value: int) -> int:
    """Mix the bits of a 64-bit number, as Scala's hash of the same name does."""
    swapped = ((value * 0x9E3775CD9E3775CD) & MASK64).to_bytes(8, "little")
    return (int.from_bytes(swapped, "big") * 0x9E3775CD9E3775CD) & MASK64


def hash_seed(seed: int) -> int:
    """Return the initial state that Spark makes of a seed."""
    data = (seed & MASK64).to_bytes(8, "big")
    low = _murmur3(data, ARRAY_SEED)
    return _murmur3(data, low) << 32 | low


def _murmur3(data: bytes, seed: int) -> int:
    """Return the 32-bit MurmurHash3 of whole words."""
    mixed = seed
    for start in range(0, len(data), 4):
        word = int.from_bytes(data[start : start + 4], "little") * 0xCC9E2D51 & MASK32
        mixed ^= _rotated(word, 15) * 0x1B873593 & MASK32
        mixed = (_rotated(mixed, 13) * 5 + 0xE6546B64) & MASK32
    mixed ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = ((mixed ^ mixed >> shift) * factor) & MASK32
    return mixed ^ mixed >> 16


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & MASK32


def _polar(draws: U64) -> NDArray[np.float64]:
    """Transform uniform draws to normals; four draws make two normals or none."""
    first, second = _signed_unit(draws[0::4], draws[1::4]), _signed_unit(draws[2::4], draws[3::4])
    square = first * first + second * second
    inside = np.flatnonzero((square < 1) & (square > 0))
    square = square[inside]
    pairs = np.stack([first[inside], second[inside]], axis=1)
    pairs *= np.sqrt(-2 * np.log(square) / square)[:, None]
    return pairs.ravel()


def _signed_unit(high: U64, low: U64) -> NDArray[np.float64]:
    """Combine 26 high and 27 low random bits to numbers from -1 to 1."""
    bits = (high & np.uint64((1 << 26) - 1)) << np.uint64(27)
    bits += low & np.uint64((1 << 27) - 1)
    unit: NDArray[np.float64] = bits * 2.0**-52 - 1
    return unit


def _stream(state: int, log_lanes: int) -> tuple[U64, int]:
    """Return the ``2^(log_lanes + LOG_STEPS)`` states after `state`, and the last of them."""
    lanes = np.array([state], dtype=np.uint64)
    for log in range(log_lanes):
        lanes = np.concatenate([lanes, _times(_jump(LOG_STEPS + log), lanes)])
    states = np.empty((1 << LOG_STEPS, len(lanes)), dtype=np.uint64)
    for row in states:
        lanes = _step(lanes, out=row)
    return states.T.ravel(), int(lanes[-1])


def _step(states: U64, out: U64) -> U64:
    np.left_shift(states, np.uint64(21), out=out)
    out ^= states
    out ^= out >> np.uint64(35)
    out ^= out << np.uint64(4)
    return out


@cache
def _jump(log_steps: int) -> U64:
    """Return the matrix of ``2^log_steps`` steps, as byte tables for `_times`."""
    units = np.uint64(1) << np.arange(64, dtype=np.uint64)
    if log_steps == 0:
        columns = _step(units, out=np.empty_like(units))
    else:
        half = _jump(log_steps - 1)
        columns = _times(half, _times(half, units))
    tables = np.zeros((8, 256), dtype=np.uint64)
    for bit in range(8):
        # A byte whose highest bit is `bit`: the product of its lower bits, plus the bit's column.
        tables[:, 1 << bit : 2 << bit] = tables[:, : 1 << bit] ^ columns[bit::8, None]
    return tables


def _times(matrix: U64, states: U64) -> U64:
    """Multiply each state by a matrix, given as products for every byte value in 8 positions."""
    product = np.zeros_like(states)
    for position, byte_products in enumerate(matrix):
        product ^= byte_products[states >> np.uint64(8 * position) & np.uint64(255)]
    return product
