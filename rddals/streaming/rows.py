"""Rows of the streaming model: a factor, a bias, and how much they were learned from.

They are rows of one `FactorBlock`: what belongs to an id travels, and is kept, as one. A number of
ratings is exact up to 2^24; of an id with more the next one changes nothing that a float32 holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BiasedRows",
    "centred_rows",
    "intermediate_width",
    "parameter_width",
    "product_factors",
    "state_width",
    "user_factors",
]

Rows = NDArray[np.float32]


def parameter_width(rank: int) -> int:
    """Columns that the other side needs: factor and bias."""
    return rank + 1


def state_width(rank: int) -> int:
    """Columns that are kept: the number of ratings too."""
    return rank + 2


def intermediate_width(rank: int) -> int:
    """Columns that are kept between the half-updates of a batch: where it found the row too."""
    return 2 * rank + 3


@dataclass(frozen=True, slots=True)
class BiasedRows:
    """The rows of some ids, by what they mean.

    Attributes
    ----------
    parameters : ndarray of float32, shape (n, rank + 1)
        Factors, and biases in the last column.
    counts : ndarray of float32, shape (n,)
        How many ratings each was learned from.
    anchor : ndarray of float32, shape (n, rank + 1)
        Where the batch that is being learned found them.
    """

    parameters: Rows
    counts: Rows
    anchor: Rows

    @classmethod
    def from_state(cls, rows: Rows) -> BiasedRows:
        """Rows as a batch finds them; shape (n, rank + 2)."""
        return cls(rows[:, :-1], rows[:, -1], rows[:, :-1])

    @classmethod
    def from_intermediate(cls, rows: Rows) -> BiasedRows:
        """Rows as `intermediate_rows` gives them."""
        width = rows.shape[1] // 2
        return cls(rows[:, :width], rows[:, width], rows[:, width + 1 :])

    def only(self, here: NDArray[np.intp]) -> BiasedRows:
        """Some of these rows."""
        return BiasedRows(self.parameters[here], self.counts[here], self.anchor[here])

    def with_parameters(self, here: NDArray[np.intp], parameters: Rows) -> BiasedRows:
        """The same, but for factors and biases of some."""
        rows = self.parameters.copy()
        rows[here] = parameters
        return BiasedRows(rows, self.counts, self.anchor)

    def intermediate_rows(self) -> Rows:
        """All of it, for the next half-update of a batch; shape (n, 2 rank + 3)."""
        return np.concatenate([self.parameters, self.counts[:, None], self.anchor], axis=1)

    def final_rows(self, degrees: NDArray[np.int64]) -> Rows:
        """What is kept after a batch of that many ratings of each; shape (n, rank + 2)."""
        counts = (self.counts + degrees).astype(np.float32)
        return np.concatenate([self.parameters, counts[:, None]], axis=1)


def user_factors(rows: Rows) -> Rows:
    """Factors ``(U, b, 1)`` of users; `rows` are as they are kept, shape (n, rank + 2)."""
    factors: Rows = rows.copy()
    factors[:, -1] = 1
    return factors


def product_factors(rows: Rows, mean: float) -> Rows:
    """Factors ``(P, 1, b + mean)`` of products: their products with users' are predictions."""
    factors: Rows = rows.copy()
    factors[:, -1] = rows[:, -2].astype(np.float64) + mean
    factors[:, -2] = 1
    return factors


def centred_rows(
    factors: Rows, mean: NDArray[np.float64], other_mean: NDArray[np.float64], count: int
) -> Rows:
    """Rows as they are kept, shape (n, rank + 2), from factors without biases.

    Parameters
    ----------
    factors : ndarray of float32, shape (n, rank)
    mean, other_mean : ndarray of float64, shape (rank,)
        Of this side's and the other side's factors. What both sides' means give is the mean of
        the model, what a factor gives with the other's mean its bias.
    count : int
        Ratings that each row counts as learned from.
    """
    centred = factors - mean
    counts = np.full((len(centred), 1), count)
    rows = np.concatenate([centred, (centred @ other_mean)[:, None], counts], axis=1)
    return rows.astype(np.float32)
