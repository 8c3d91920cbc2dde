"""Rows of the streaming model: a factor, a bias, and the number of ratings they were learned from.

All columns of an id are one row of a `FactorBlock`, so they travel and are stored together. The
number of ratings is exact up to 2^24; beyond that, one more rating changes no float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


def parameter_width(rank: int) -> int:
    """Return the number of columns that the other side needs: factor and bias."""
    return rank + 1


def state_width(rank: int) -> int:
    """Return the number of stored columns: factor, bias and number of ratings."""
    return rank + 2


def intermediate_width(rank: int) -> int:
    """Return the number of columns between half-updates: the stored columns and the anchor."""
    return 2 * rank + 3


@dataclass(frozen=True, slots=True)
class BiasedRows:
    """Rows of some ids, split by meaning.

    Attributes
    ----------
    parameters : ndarray of float32, shape (n, rank + 1)
        Factors, with biases in the last column.
    counts : ndarray of float32, shape (n,)
        Number of ratings that each row was learned from.
    anchor : ndarray of float32, shape (n, rank + 1)
        Parameters before the current batch.
    """

    parameters: Rows
    counts: Rows
    anchor: Rows

    @classmethod
    def from_state(cls, rows: Rows) -> BiasedRows:
        """Split stored rows, shape (n, rank + 2), at the start of a batch."""
        return cls(rows[:, :-1], rows[:, -1], rows[:, :-1])

    @classmethod
    def from_intermediate(cls, rows: Rows) -> BiasedRows:
        """Split the rows that `intermediate_rows` returns."""
        width = rows.shape[1] // 2
        return cls(rows[:, :width], rows[:, width], rows[:, width + 1 :])

    def only(self, positions: NDArray[np.intp]) -> BiasedRows:
        """Return the rows at some positions."""
        return BiasedRows(
            self.parameters[positions], self.counts[positions], self.anchor[positions]
        )

    def with_parameters(self, positions: NDArray[np.intp], parameters: Rows) -> BiasedRows:
        """Return a copy with new parameters at some positions."""
        rows = self.parameters.copy()
        rows[positions] = parameters
        return BiasedRows(rows, self.counts, self.anchor)

    def intermediate_rows(self) -> Rows:
        """Return all columns for the next half-update of a batch; shape (n, 2 rank + 3)."""
        return np.concatenate([self.parameters, self.counts[:, None], self.anchor], axis=1)

    def final_rows(self, degrees: NDArray[np.int64]) -> Rows:
        """Return the rows to store after a batch, with `degrees` added; shape (n, rank + 2)."""
        counts = (self.counts + degrees).astype(np.float32)
        return np.concatenate([self.parameters, counts[:, None]], axis=1)


def user_factors(rows: Rows) -> Rows:
    """Return user factors ``(U, b, 1)`` from stored rows, shape (n, rank + 2)."""
    factors: Rows = rows.copy()
    factors[:, -1] = 1
    return factors


def product_factors(rows: Rows, mean: float) -> Rows:
    """Return product factors ``(P, 1, b + mean)`` from stored rows.

    Their dot products with user factors are predictions.
    """
    factors: Rows = rows.copy()
    factors[:, -1] = rows[:, -2].astype(np.float64) + mean
    factors[:, -2] = 1
    return factors


def centred_rows(
    factors: Rows, mean: NDArray[np.float64], other_mean: NDArray[np.float64], count: int
) -> Rows:
    """Return rows to store, shape (n, rank + 2), from factors without biases.

    The dot product of the sides' mean factors is the mean of the model; that of a centred factor
    and `other_mean` is its bias. `count` is the number of ratings assumed for each row.
    """
    centred = factors - mean
    counts = np.full((len(centred), 1), count)
    rows = np.concatenate([centred, (centred @ other_mean)[:, None], counts], axis=1)
    return rows.astype(np.float32)
