"""Batched solvers of small symmetric positive definite systems."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from scipy.linalg import lapack
except ImportError:  # a cluster's Python that has NumPy and nothing else
    lapack = None

__all__ = ["solve_nonnegative", "solve_spd"]

Array = NDArray[Any]

#: Up to this order, by bytes per number, a Cholesky vectorised across the batch beats one LAPACK
#: call per system.
VECTORISED_ORDER = {4: 28, 8: 24}
#: Rounds of block pivoting without progress, before components are exchanged one at a time.
PATIENCE = 3
#: Rounds in all, per component.
ROUNDS = 10


def solve_spd(a: Array, b: Array) -> tuple[Array, Array]:
    """Solve a batch of symmetric positive definite systems by Cholesky factorisation.

    Parameters
    ----------
    a : ndarray of float32 or float64, shape (n, k, k)
        Symmetric; overwritten.
    b : ndarray, shape (n, k), of the same type
        May be overwritten.

    Returns
    -------
    x : ndarray, shape (n, k)
        Not meaningful for singular systems.
    singular : ndarray of bool, shape (n,)
        Systems whose factorisation met a pivot that is zero to rounding.
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
    # A NaN pivot is the square root of a negative one.
    return x, ~(pivots > smallest_pivot).all(axis=1)


def _cholesky_one_by_one(a: Array, b: Array) -> tuple[Array, Array]:
    posv = lapack.sposv if a.dtype == np.float32 else lapack.dposv
    n, k = b.shape
    factors = np.ones(n, dtype=bool)
    for i, (matrix, vector) in enumerate(zip(a, b, strict=True)):
        # The transpose is Fortran-ordered, so LAPACK works in place and copies nothing.
        _, _, info = posv(matrix.T, vector, lower=1, overwrite_a=1, overwrite_b=1)
        factors[i] = info == 0
    pivots = a.reshape(n, k * k)[:, :: k + 1] ** 2
    pivots[~factors] = 0
    return b, pivots


def _cholesky_across_batch(a: Array, b: Array) -> tuple[Array, Array]:
    """Every step of the factorisation, for all systems at once: the batch is the last axis."""
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
            lower[j, j] = scale  # the inverse of the pivot's root is all that is needed again
            x[j] *= scale
        for j in reversed(range(k)):
            if j + 1 < k:
                x[j] -= np.einsum("pn,pn->n", lower[j + 1 :, j], x[j + 1 :])
            x[j] *= lower[j, j]
    return x.T, pivots.T


def solve_nonnegative(a: Array, b: Array) -> tuple[Array, Array]:
    """Minimise ``x'ax / 2 - b'x`` over ``x >= 0`` for a batch, by block principal pivoting.

    Each system guesses which components are positive, solves for those alone, and exchanges
    every component that has the wrong sign; where that does not lower their number for some
    rounds, only the last of them (Murty's rule, which cannot cycle).

    Parameters
    ----------
    a : ndarray of float32 or float64, shape (n, k, k)
        Symmetric positive definite.
    b : ndarray, shape (n, k), of the same type

    Returns
    -------
    x : ndarray, shape (n, k)
    singular : ndarray of bool, shape (n,)

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
    patience = np.full(n, PATIENCE)
    left = np.arange(n)
    eps = np.finfo(b.dtype).eps
    # Gradients below the rounding of b are zeros; without a tolerance ties would cycle.
    tolerance = 8 * k * eps * np.abs(b).max(axis=1, initial=0, keepdims=True)
    for _ in range(ROUNDS * (k + 5)):
        on = positive[left]
        restricted = a[left] * (on[:, :, None] & on[:, None, :])
        restricted.reshape(len(left), k * k)[:, :: k + 1] += ~on
        candidate, bad = solve_spd(restricted, b[left] * on)
        candidate = np.where(on, candidate, 0)
        gradient = np.matmul(a[left], candidate[:, :, None])[:, :, 0] - b[left]
        scale = eps * k * np.abs(candidate).max(axis=1, initial=0, keepdims=True)
        wrong = np.where(on, candidate < -scale, gradient < -tolerance[left])
        wrong[bad] = False
        count = wrong.sum(axis=1)

        done = count == 0
        x[left[done]] = np.maximum(candidate[done], 0)
        singular[left[bad]] = True

        better = count < fewest[left]
        fewest[left] = np.where(better, count, fewest[left])
        patience[left] = np.where(better, PATIENCE, patience[left] - 1)
        stuck = patience[left] < 0
        last = k - 1 - np.argmax(wrong[:, ::-1], axis=1)
        only_last = np.zeros_like(wrong)
        only_last[np.arange(len(left)), last] = True
        positive[left] = on ^ np.where(stuck[:, None], only_last & wrong, wrong)
        left = left[~done]
        if not len(left):
            return x, singular
    # Rounding can keep a nearly singular system from settling; an active-set method always ends.
    from scipy.linalg import LinAlgError, cholesky, solve_triangular
    from scipy.optimize import nnls  # a third of a second that workers seldom need

    for i in left:
        try:
            factor = cholesky(a[i].astype(np.float64))
        except LinAlgError:
            singular[i] = True
            continue
        target = solve_triangular(factor, b[i].astype(np.float64), trans="T")
        x[i] = nnls(factor, target)[0]
    return x, singular
