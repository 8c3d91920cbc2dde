"""ALS on a dense matrix, in float64, one row at a time: slow, and short enough to check by eye.

Ratings are three lists of positions and values: ``rows[e]`` rated ``columns[e]`` with
``ratings[e]``. Duplicates are observations of their own.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls


def half_step(rows, columns, ratings, Y, n_rows, *, lambda_, alpha=None, nonnegative=False):
    """Solve every row from the factors Y of the columns; `alpha` makes it implicit feedback."""
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
    """What ALS minimises, penalty included."""
    counted = np.ones(len(ratings)) if alpha is None else (ratings > 0).astype(float)
    n_users = np.bincount(users, counted, len(X))
    n_products = np.bincount(products, counted, len(Y))
    penalty = lambda_ * (n_users @ (X**2).sum(axis=1) + n_products @ (Y**2).sum(axis=1))
    predicted = np.sum(X[users] * Y[products], axis=1)
    if alpha is None:
        return np.sum((ratings - predicted) ** 2) + penalty
    # Every pair with preference 0 and confidence 1, then what the observed ones differ by.
    c1 = alpha * np.abs(ratings)
    wanted = ratings > 0
    observed = np.where(wanted, (1 + c1) * (1 - predicted) ** 2 - predicted**2, c1 * predicted**2)
    return np.sum((X @ Y.T) ** 2) + np.sum(observed) + penalty
