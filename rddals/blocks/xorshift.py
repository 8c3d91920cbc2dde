"""Spark's own random numbers: `XORShiftRandom`, and the normals that Java draws from it.

Each state of the generator follows from the one before, so the stream is sequential. But the step
is made of shifts and exclusive ors, which are linear over the integers modulo 2: n steps are one
64 x 64 matrix of bits, and a state can be moved ahead by any number of them. So many lanes, each
started where the one before it will end, are stepped together, and their outputs in order are the
stream.

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

__all__ = ["byteswap64", "gaussians", "hashed", "longs"]

U64 = NDArray[np.uint64]

MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1
#: The seed of Scala's hash of arrays, which Spark scrambles seeds with.
ARRAY_SEED = 0x3C074A61
#: Steps of a lane, two to this power: a multiple of the four draws that two normals take.
LOG_STEPS = 6
#: Lanes at most, two to this power; a state of each fits the first-level cache.
MOST_LOG_LANES = 12


def longs(seed: int, count: int) -> list[int]:
    """The first `count` draws of ``nextLong``, modulo 2^64."""
    draws, _ = _stream(hashed(seed), 0)
    words = (draws[: 2 * count] & np.uint64(MASK32)).tolist()
    # The low half is a signed number, and borrows from the high one.
    return [
        ((high << 32) + low - ((low >> 31) << 32)) & MASK64
        for high, low in zip(words[0::2], words[1::2], strict=True)
    ]


def gaussians(seed: int, count: int) -> NDArray[np.float64]:
    """The first `count` draws of ``nextGaussian``.

    Parameters
    ----------
    seed : int
        As the generator is made with, modulo 2^64.
    count : int

    Returns
    -------
    ndarray of float64, shape (count,)
    """
    normals = np.empty(count)
    filled, state = 0, hashed(seed)
    while filled < count:
        # 4 draws give 2 normals with probability pi / 4.
        wanted = int((count - filled) * 2.6)
        log_lanes = min(max(0, wanted >> LOG_STEPS).bit_length(), MOST_LOG_LANES)
        draws, state = _stream(state, log_lanes)
        more = _polar(draws)[: count - filled]
        normals[filled : filled + len(more)] = more
        filled += len(more)
    return normals


def byteswap64(value: int) -> int:
    """Spread the bits of a 64-bit number, as Scala's hash of the same name."""
    swapped = ((value * 0x9E3775CD9E3775CD) & MASK64).to_bytes(8, "little")
    return (int.from_bytes(swapped, "big") * 0x9E3775CD9E3775CD) & MASK64


def hashed(seed: int) -> int:
    """The state that Spark starts from."""
    data = (seed & MASK64).to_bytes(8, "big")
    low = _murmur3(data, ARRAY_SEED)
    return _murmur3(data, low) << 32 | low


def _murmur3(data: bytes, seed: int) -> int:
    """MurmurHash3 of whole words, 32 bits."""
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
    """Normals out of uniform draws, four of which make two normals or none."""
    first, second = _signed_unit(draws[0::4], draws[1::4]), _signed_unit(draws[2::4], draws[3::4])
    square = first * first + second * second
    inside = np.flatnonzero((square < 1) & (square > 0))
    square = square[inside]
    pairs = np.stack([first[inside], second[inside]], axis=1)
    pairs *= np.sqrt(-2 * np.log(square) / square)[:, None]
    return pairs.ravel()


def _signed_unit(high: U64, low: U64) -> NDArray[np.float64]:
    """Numbers from -1 to 1, of 26 and 27 random bits."""
    bits = (high & np.uint64((1 << 26) - 1)) << np.uint64(27)
    bits += low & np.uint64((1 << 27) - 1)
    unit: NDArray[np.float64] = bits * 2.0**-52 - 1
    return unit


def _stream(state: int, log_lanes: int) -> tuple[U64, int]:
    """The states that follow `state`, ``2^(log_lanes + LOG_STEPS)`` of them, and the last."""
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
    """The matrix of ``2^log_steps`` steps, as `_times` takes it."""
    units = np.uint64(1) << np.arange(64, dtype=np.uint64)
    if log_steps == 0:
        columns = _step(units, out=np.empty_like(units))
    else:
        half = _jump(log_steps - 1)
        columns = _times(half, _times(half, units))
    tables = np.zeros((8, 256), dtype=np.uint64)
    for bit in range(8):
        # What has this bit and lower ones: what has the lower ones alone, and the bit's column.
        tables[:, 1 << bit : 2 << bit] = tables[:, : 1 << bit] ^ columns[bit::8, None]
    return tables


def _times(matrix: U64, states: U64) -> U64:
    """Each state times a matrix of bits: its product with every byte there is, for 8 places."""
    product = np.zeros_like(states)
    for place, of_byte in enumerate(matrix):
        product ^= of_byte[states >> np.uint64(8 * place) & np.uint64(255)]
    return product
