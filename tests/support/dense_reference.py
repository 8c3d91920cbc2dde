"""Reference ALS on a dense matrix, in float64, one row at a time.

Ratings are three arrays: ``rows[e]`` rated ``columns[e]`` with ``ratings[e]``. Duplicates count as
separate observations.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls


def half_step(rows, columns, ratings, Y, n_rows, *, lambda_, alpha=None, nonnegative=False):
    """Solve every row from the factors Y of the columns; `alpha` is for implicit feedback."""
    rank = Y.shape[1]
    X = np.zeros((n_rows, rank))
    for u in range(n_rows):
        r = ratings[rows == u]
        G = Y[columns[rows == u]]
        if alpha is None:
            A = G.T @ G + lambda_ * len(r) * np.eye(rank)
            b = G.T @ r
        else:
            c1 = alpha * np.abs(r)
            A = Y.T @ Y + G.T @ (c1[:, None] * G) + lambda_ * np.sum(r > 0) * np.eye(rank)
            b = G.T @ ((r > 0) * (1 + c1))
        if not b.any():
            continue  # the minimum is at 0, whether or not A is regular
        if nonnegative:
            R = np.linalg.cholesky(A).T  # A = R'R: min |Rx - R'^-1 b| over x >= 0
            X[u] = nnls(R, np.linalg.solve(R.T, b))[0]
        else:
            X[u] = np.linalg.solve(A, b)
    return X


def objective(users, products, ratings, X, Y, *, lambda_, alpha=None):
    """Return the loss that ALS minimises, penalty included."""
    weights = np.ones(len(ratings)) if alpha is None else (ratings > 0).astype(float)
    n_users = np.bincount(users, weights, len(X))
    n_products = np.bincount(products, weights, len(Y))
    penalty = lambda_ * (n_users @ (X**2).sum(axis=1) + n_products @ (Y**2).sum(axis=1))
    predicted = np.sum(X[users] * Y[products], axis=1)
    if alpha is None:
        return np.sum((ratings - predicted) ** 2) + penalty
    # All pairs with preference 0 and confidence 1, then the correction for observed pairs.
    c1 = alpha * np.abs(ratings)
    preferred = ratings > 0
    observed = np.where(
        preferred, (1 + c1) * (1 - predicted) ** 2 - predicted**2, c1 * predicted**2
    )
    return np.sum((X @ Y.T) ** 2) + np.sum(observed) + penalty
