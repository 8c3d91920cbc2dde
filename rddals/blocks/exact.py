"""Sums of floats without rounding, so that no order of adding them matters."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["exact_sum"]

#: Bits of a float32's significand.
SIGNIFICAND = 24
#: Every float32 is an integer times 2 to this power.
LEAST_EXPONENT = -148 - SIGNIFICAND


def exact_sum(values: NDArray[np.float32]) -> Fraction:
    """The sum of finite float32 values, as it is.

    Numbers of equal exponent are integers of equal unit, and few exponents occur.
    """
    fractions, exponents = np.frexp(values)
    integers = np.ldexp(fractions, SIGNIFICAND).astype(np.int64)
    total = 0
    for exponent in np.unique(exponents).tolist():
        shift = exponent - SIGNIFICAND - LEAST_EXPONENT
        total += int(integers[exponents == exponent].sum()) << shift
    return Fraction(total, 1 << -LEAST_EXPONENT)
