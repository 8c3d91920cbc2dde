"""The finaliser of SplitMix64, a bijection that mixes all bits of a word.

G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: The increment of SplitMix64: the golden ratio as a fraction of 2^64, made odd.
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mix(words: npt.NDArray[np.uint64]) -> None:
    """Mix the bits of each word, in place."""
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
