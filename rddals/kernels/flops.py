"""Floating-point operation counts of a half-step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The dual form is cheaper below this fraction of the rank, in ratings per row.
DUAL_SHARE = 0.9


def flops(degrees: NDArray[Any], rank: int) -> NDArray[np.float64]:
    """Count the floating-point operations of solving rows in the cheaper form.

    Gathering d rows counts as one operation per number. A system of order n takes n^3 / 3, and its
    normal equations take the multiplications and additions of a symmetric product (Golub and Van
    Loan, "Matrix Computations", 4th ed., sections 1.1 and 4.2).
    """
    d = degrees.astype(np.float64)
    order = np.where(d < DUAL_SHARE * rank, d, rank)
    inner = np.where(d < DUAL_SHARE * rank, rank, d)
    work: NDArray[np.float64] = d * rank + order**2 * inner + order**3 / 3 + 4 * d * rank
    return work


def flops_of_mean(rows: int, ratings: int, rank: int) -> float:
    """Count the operations of `rows` rows with `ratings` ratings spread evenly."""
    return rows * float(flops(np.array([ratings / max(rows, 1)]), rank)[0])
