"""Equations of a half-step, prepared once for either implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.links import InBlock
from rddals.config import Objective

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class System:
    """Equations of a block: ``(G'G + diag(ridge + eigenvalues) + common) x = G't``.

    Attributes
    ----------
    in_block : InBlock
    objective : Objective
    source_rows : ndarray, shape (m, rank)
        Source rows. With a rotation, in the eigenbasis of Y'Y and of the objective's dtype.
    ridge : ndarray of the objective's dtype, shape (n,)
        Ridge of each row, added to its diagonal: lambda times its number of ratings.
    eigenvalues : ndarray of the same dtype, shape (rank,)
        Eigenvalues of Y'Y, added to every diagonal; zeros for explicit feedback.
    rotation : ndarray of the same dtype, shape (rank, rank), or None
        Eigenvectors of Y'Y. The factors are the solutions times the transpose.
    common : ndarray of the same dtype, shape (rank, rank), or None
        Y'Y itself, for nonnegative factors, whose constraints do not survive a rotation.
    solved : ndarray of the same dtype, shape (n, rank)
        Output: rotated solutions, in the order of the block's rows.
    singular : ndarray of bool, shape (n,)
        Output: True for rows whose equations have no unique solution.
    """

    in_block: InBlock
    objective: Objective
    source_rows: Array
    ridge: Array
    eigenvalues: Array
    rotation: Array | None
    common: Array | None
    solved: Array
    singular: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        in_block: InBlock,
        source_rows: NDArray[np.float32],
        objective: Objective,
        source_gram: NDArray[np.float64] | None,
    ) -> System:
        """Prepare the system of a block."""
        rank, dtype = objective.rank, objective.dtype
        eigenvalues, rotation, common = np.zeros(rank), None, None
        rows: Array = source_rows
        if source_gram is not None and objective.nonnegative:
            common = source_gram.astype(dtype)
        elif source_gram is not None:
            eigenvalues, vectors = np.linalg.eigh(source_gram)
            eigenvalues = np.maximum(eigenvalues, 0)
            rotation = vectors.astype(dtype)
            rows = source_rows.astype(dtype, copy=False) @ rotation
        counts = penalty_counts(in_block, objective)
        ridge = objective.lambda_ * counts
        if objective.implicit:
            # Without a positive rating the solution is 0 for any ridge; 1 keeps the system regular.
            ridge[counts == 0] = 1.0
        with np.errstate(over="ignore"):  # half_step raises if the overflow matters
            ridge, eigenvalues = ridge.astype(dtype), eigenvalues.astype(dtype)
        return cls(
            in_block,
            objective,
            rows,
            ridge,
            eigenvalues,
            rotation,
            common,
            solved=np.zeros((len(in_block.ids), rank), dtype=dtype),
            singular=np.zeros(len(in_block.ids), dtype=bool),
        )

    @property
    def dual(self) -> bool:
        """Whether the dual form is allowed; it needs a ridge and no constraints."""
        return self.objective.lambda_ > 0 and not self.objective.nonnegative


def penalty_counts(in_block: InBlock, objective: Objective) -> NDArray[np.float64]:
    """Return the number of ratings that weights each row's penalty; 1 if unweighted."""
    if not objective.weighted:
        return np.ones(len(in_block.ids))
    counts = in_block.positives if objective.implicit else in_block.degrees
    return counts.astype(np.float64)
