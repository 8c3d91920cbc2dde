"""Batched solvers for small symmetric positive definite systems."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from scipy.linalg import lapack
except ImportError:  # workers may have NumPy alone
    lapack = None

Array = NDArray[Any]

#: Largest order, by item size in bytes, at which a Cholesky factorisation vectorised across the
#: batch is faster than one LAPACK call per system.
VECTORISED_ORDER = {4: 28, 8: 24}
#: Rounds of block pivoting without progress before components are exchanged one at a time.
MAX_STALLED_ROUNDS = 3
#: Maximum number of rounds per component, before the active-set method takes over.
ROUNDS_PER_COMPONENT = 10


def solve_spd(a: Array, b: Array) -> tuple[Array, Array]:
    """Solve symmetric positive definite systems, (n, k, k) and (n, k), by Cholesky factorisation.

    Return the solutions (n, k), and whether each system is singular (n,): a pivot is zero to
    rounding, and the solution undefined. `a` is overwritten, and `b` may be.
    """
    n, k = b.shape
    if n == 0:
        return b, np.zeros(0, dtype=bool)
    diagonal = a.reshape(n, k * k)[:, :: k + 1]
    smallest_pivot = diagonal * (k * np.finfo(a.dtype).eps)
    if lapack is None or k <= VECTORISED_ORDER[a.itemsize]:
        x, pivots = _cholesky_across_batch(a, b)
    else:
        x, pivots = _cholesky_one_by_one(a, b)
    # The negation also catches NaN, which follows the square root of a negative pivot.
    return x, ~(pivots > smallest_pivot).all(axis=1)


def _cholesky_one_by_one(a: Array, b: Array) -> tuple[Array, Array]:
    posv = lapack.sposv if a.dtype == np.float32 else lapack.dposv
    n, k = b.shape
    factors = np.ones(n, dtype=bool)
    for i, (matrix, vector) in enumerate(zip(a, b, strict=True)):
        # The transpose is Fortran-ordered, so LAPACK works in place without a copy.
        _, _, info = posv(matrix.T, vector, lower=1, overwrite_a=1, overwrite_b=1)
        factors[i] = info == 0
    pivots = a.reshape(n, k * k)[:, :: k + 1] ** 2
    pivots[~factors] = 0
    return b, pivots


def _cholesky_across_batch(a: Array, b: Array) -> tuple[Array, Array]:
    """Factorise and solve all systems at once, with the batch as the last axis."""
    k = b.shape[1]
    lower = np.ascontiguousarray(a.transpose(1, 2, 0))  # (n, k, k) -> (k, k, n)
    x = np.ascontiguousarray(b.T)
    pivots = np.empty_like(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        for j in range(k):
            if j:
                lower[j:, j] -= np.einsum("ipn,pn->in", lower[j:, :j], lower[j, :j])
                x[j] -= np.einsum("pn,pn->n", lower[j, :j], x[:j])
            pivots[j] = lower[j, j]
            scale = 1 / np.sqrt(pivots[j])
            lower[j + 1 :, j] *= scale
            lower[j, j] = scale  # later steps need only the inverse root
            x[j] *= scale
        for j in reversed(range(k)):
            if j + 1 < k:
                x[j] -= np.einsum("pn,pn->n", lower[j + 1 :, j], x[j + 1 :])
            x[j] *= lower[j, j]
    return x.T, pivots.T


def solve_nonnegative(a: Array, b: Array) -> tuple[Array, Array]:
    """Minimise ``x'ax / 2 - b'x`` over ``x >= 0`` for a batch, by block principal pivoting.

    Each round solves every system for the components assumed positive, then exchanges all
    components with the wrong sign. A system whose number of wrong components has not fallen for
    some rounds exchanges only the last one (Murty's rule, which cannot cycle).

    Return the solutions (n, k), and whether each system is singular (n,): its matrix (k, k) is not
    positive definite to rounding.

    References
    ----------
    Kim and Park, "Fast nonnegative matrix factorization: an active-set-like method and
    comparisons", SIAM J. Sci. Comput. 33 (2011).
    """
    n, k = b.shape
    x = np.zeros_like(b)
    singular = np.zeros(n, dtype=bool)
    positive = np.ones((n, k), dtype=bool)
    fewest = np.full(n, k + 1)
    rounds_left = np.full(n, MAX_STALLED_ROUNDS)
    active = np.arange(n)
    eps = np.finfo(b.dtype).eps
    # Gradients within the rounding of b count as zero; without a tolerance, ties would cycle.
    tolerance = 8 * k * eps * np.abs(b).max(axis=1, initial=0, keepdims=True)
    for _ in range(ROUNDS_PER_COMPONENT * (k + 5)):
        free = positive[active]
        restricted = a[active] * (free[:, :, None] & free[:, None, :])
        restricted.reshape(len(active), k * k)[:, :: k + 1] += ~free
        candidate, bad = solve_spd(restricted, b[active] * free)
        candidate = np.where(free, candidate, 0)
        gradient = np.matmul(a[active], candidate[:, :, None])[:, :, 0] - b[active]
        scale = eps * k * np.abs(candidate).max(axis=1, initial=0, keepdims=True)
        wrong = np.where(free, candidate < -scale, gradient < -tolerance[active])
        wrong[bad] = False
        count = wrong.sum(axis=1)

        done = count == 0
        x[active[done]] = np.maximum(candidate[done], 0)
        singular[active[bad]] = True

        better = count < fewest[active]
        fewest[active] = np.where(better, count, fewest[active])
        rounds_left[active] = np.where(better, MAX_STALLED_ROUNDS, rounds_left[active] - 1)
        stuck = rounds_left[active] < 0
        last = k - 1 - np.argmax(wrong[:, ::-1], axis=1)
        only_last = np.zeros_like(wrong)
        only_last[np.arange(len(active)), last] = True
        positive[active] = free ^ np.where(stuck[:, None], only_last & wrong, wrong)
        active = active[~done]
        if not len(active):
            return x, singular
    # Rounding can keep a nearly singular system from converging; an active-set method terminates.
    from scipy.linalg import LinAlgError, cholesky, solve_triangular
    from scipy.optimize import nnls  # slow to import (0.3 s) and rarely needed

    for i in active:
        try:
            factor = cholesky(a[i].astype(np.float64))
        except LinAlgError:
            singular[i] = True
            continue
        target = solve_triangular(factor, b[i].astype(np.float64), trans="T")
        x[i] = nnls(factor, target)[0]
    return x, singular
