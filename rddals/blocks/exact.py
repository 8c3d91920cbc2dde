"""Exact sums of floats, independent of the order of addition."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

#: Bits of a float32's significand.
SIGNIFICAND = 24
#: Exponent e such that every float32 is an integer times 2^e.
MIN_EXPONENT = -148 - SIGNIFICAND


def exact_sum(values: NDArray[np.float32]) -> Fraction:
    """Return the exact sum of finite float32 values.

    Values with the same exponent add up as integers, and few exponents occur.
    """
    fractions, exponents = np.frexp(values)
    integers = np.ldexp(fractions, SIGNIFICAND).astype(np.int64)
    total = 0
    for exponent in np.unique(exponents).tolist():
        shift = exponent - SIGNIFICAND - MIN_EXPONENT
        total += int(integers[exponents == exponent].sum()) << shift
    return Fraction(total, 1 << -MIN_EXPONENT)
