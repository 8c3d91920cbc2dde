"""One half-step: the factors of a block from the source rows it needs.

Every row solves a regularised least-squares problem. With G (d, k) the source rows of its d
ratings, weighted by w and aimed at t,

    x = (G' G + diag(p))^-1 G' t.

Explicit feedback: w = 1, t = r, p = lambda n. Implicit feedback adds Y'Y over *all* source rows
to every system; in the eigenbasis of Y'Y = Q L Q' that is a diagonal too, p = L + lambda n, so
that both kinds are one equation once the source rows are rotated by Q. With c = alpha |r| the
weights are w = sqrt(c), G's rows are scaled by w, and t = (1 + c) / w for r > 0, else 0.

A row with d < k ratings is cheaper in its dual form (Woodbury): with H = G diag(p)^-1/2,

    x = diag(p)^-1/2 H' (H H' + I)^-1 t,

a system of order d instead of k, equal to rounding.

The loss comes along: at the minimum, ``e - x'(G't)`` is the row's squared error plus its own
penalty, where e is the error of x = 0: the sum of r^2, or of 1 + c over the ratings above zero.

References
----------
Zhou, Wilkinson, Schreiber and Pan, "Large-scale parallel collaborative filtering for the Netflix
prize", AAIM 2008 (explicit). Hu, Koren and Volinsky, "Collaborative filtering for implicit
feedback datasets", ICDM 2008 (implicit).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.links import Group, InBlock
from rddals.config import Objective
from rddals.errors import OverflowingRatingsError, SingularSystemError
from rddals.kernels.solvers import solve_nonnegative, solve_spd
from rddals.kernels.work import DUAL_SHARE

__all__ = ["Solution", "gram", "half_step", "penalty"]

Array = NDArray[Any]

#: Bytes of gathered rows that are worked on at a time: few calls, and a cache that holds them.
TILE_BYTES = 1 << 20
#: Bytes of normal equations that are solved at a time.
EQUATION_BYTES = 1 << 21


@dataclass(frozen=True, slots=True)
class Solution:
    """What a half-step gives.

    Attributes
    ----------
    rows : ndarray of float32, shape (n, rank)
        The factors of the block's ids, in their order.
    loss : float
        This block's squared errors (weighted, if implicit) plus its own penalty, before the
        factors are rounded to float32.
    penalty : float
        The part ``lambda sum n |x|^2`` of it.
    seconds : dict of str to float
        Time spent in "gather", "gram" and "solve".
    """

    rows: NDArray[np.float32]
    loss: float
    penalty: float
    seconds: dict[str, float]


def half_step(
    in_block: InBlock,
    source_rows: NDArray[np.float32],
    objective: Objective,
    source_gram: NDArray[np.float64] | None = None,
) -> Solution:
    """Solve every row of a block.

    Parameters
    ----------
    in_block : InBlock
    source_rows : ndarray of float32, shape (len(in_block.source_ids), rank)
        The rows the block needs, in canonical order.
    objective : Objective
    source_gram : ndarray of float64, shape (rank, rank), optional
        ``Y'Y`` over all rows of the source side, needed blocks or not; implicit feedback only.

    Raises
    ------
    SingularSystemError
        If some ids' equations have no unique solution; it names them.
    OverflowingRatingsError
        If ratings are so large that factors are not finite.
    ValueError
        If `source_rows` does not have the shape the block needs.
    """
    expected = (len(in_block.source_ids), objective.rank)
    if source_rows.shape != expected:
        raise ValueError(f"source rows of shape {source_rows.shape}; the block needs {expected}")
    if objective.implicit and source_gram is None:
        raise ValueError("implicit feedback needs source_gram, Y'Y over all source rows")
    return _HalfStep(in_block, source_rows, objective, source_gram).run()


def gram(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """``rows' rows`` in float64; shape (rank, rank)."""
    wide = rows.astype(np.float64)
    return np.asarray(wide.T @ wide)


def penalty(in_block: InBlock, rows: NDArray[np.float32], objective: Objective) -> float:
    """``lambda sum n |x|^2`` of a block's factors; `rows` in the order of its ids."""
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    return float(objective.lambda_ * (_counts(in_block, objective) @ squares[in_block.order]))


def _counts(in_block: InBlock, objective: Objective) -> NDArray[np.float64]:
    """The number of ratings that weighs each row's penalty; 1 where none does."""
    if not objective.weighted:
        return np.ones(len(in_block.ids))
    counts = in_block.positives if objective.implicit else in_block.degrees
    return counts.astype(np.float64)


@dataclass(slots=True)
class _Clock:
    """Splits a run into named parts; each call ends the part before it."""

    seconds: dict[str, float] = field(
        default_factory=lambda: {"gather": 0.0, "gram": 0.0, "solve": 0.0}
    )
    last: float = field(default_factory=perf_counter)

    def book(self, part: str) -> None:
        now = perf_counter()
        self.seconds[part] += now - self.last
        self.last = now


class _HalfStep:
    """The state of one half-step: its inputs, prepared, and its buffers."""

    def __init__(
        self,
        in_block: InBlock,
        source_rows: NDArray[np.float32],
        objective: Objective,
        source_gram: NDArray[np.float64] | None,
    ) -> None:
        self.in_block = in_block
        self.objective = objective
        self.rank = rank = objective.rank
        self.dtype = dtype = objective.dtype
        self.clock = _Clock()
        self.counts = _counts(in_block, objective)

        eigenvalues = np.zeros(rank)
        self.rotation: Array | None = None
        #: What every system has in common, where it is no diagonal.
        self.common: Array | None = None
        # One row past the last stands for padding: zeros add nothing to any sum.
        self.table = np.zeros((len(source_rows) + 1, rank), dtype=dtype)
        if source_gram is not None and objective.nonnegative:
            self.common = source_gram.astype(dtype)  # a rotation would turn the constraints too
            self.table[:-1] = source_rows
        elif source_gram is not None:
            eigenvalues, vectors = np.linalg.eigh(source_gram)
            eigenvalues = np.maximum(eigenvalues, 0)
            self.rotation = vectors.astype(dtype)
            np.matmul(source_rows.astype(dtype, copy=False), self.rotation, out=self.table[:-1])
        else:
            self.table[:-1] = source_rows
        # (n, k) for implicit feedback, (n, 1) for explicit: the diagonal that is added.
        ridge = (objective.lambda_ * self.counts)[:, None] + (
            eigenvalues if self.rotation is not None else 0.0
        )
        if objective.implicit:
            # Without a positive rating the solution is 0 whatever the ridge; 1 keeps it regular.
            ridge[self.counts == 0] = 1.0
        with np.errstate(over="ignore"):  # told of once it is known to do harm
            self.ridge = ridge.astype(dtype)
        self.dual = objective.lambda_ > 0 and not objective.nonnegative

        self.solved = np.zeros((len(in_block.ids), rank), dtype=dtype)
        self.loss = 0.0
        self.singular: list[Array] = []
        self._gather_buffer = np.empty(max(TILE_BYTES // dtype.itemsize, rank), dtype=dtype)
        self.batch = max(1, EQUATION_BYTES // (dtype.itemsize * rank * rank))
        self._equations = np.empty((self.batch, rank, rank), dtype=dtype)
        self._targets = np.empty((self.batch, rank), dtype=dtype)
        self._pending: list[slice] = []
        self._filled = 0

    def run(self) -> Solution:
        if self.objective.lambda_ == 0 and not self.objective.implicit:
            self._note_too_few_sources()
        for group in self.in_block.groups:
            if self.dual and self._dual_pays(group.width):
                self._solve_dual(group)
            else:
                self._accumulate(group)
        self._flush()
        solved = self.solved
        if self.rotation is not None:
            solved = solved @ self.rotation.T
        rows = np.empty(solved.shape, dtype=np.float32)
        with np.errstate(over="ignore"):
            rows[self.in_block.order] = solved
        self._raise_if_overflown(rows)
        self._raise_if_singular()
        self.clock.book("solve")
        return Solution(
            rows, self.loss, penalty(self.in_block, rows, self.objective), self.clock.seconds
        )

    def _dual_pays(self, width: int) -> bool:
        fits = width * self.rank <= len(self._gather_buffer)  # it needs whole rows at once
        return fits and width < DUAL_SHARE * self.rank

    # ------------------------------------------------------------------ gathering

    def _chunks(self, group: Group, most_rows: int) -> Iterator[slice]:
        """Batches of rows of a group whose gathered source rows fit the buffer."""
        fit = len(self._gather_buffer) // max(1, group.width * self.rank)
        step = max(1, min(fit, most_rows))
        for start in range(group.start, group.stop, step):
            yield slice(start, min(start + step, group.stop))

    def _entries(self, rows: slice, width: int) -> tuple[Array, Array]:
        """Source positions and ratings of some rows, padded to `width`; shapes (n, width)."""
        block = self.in_block
        pointers = block.pointers[rows.start : rows.stop + 1]
        positions = block.sources[pointers[0] : pointers[-1]]
        ratings = block.ratings_of(slice(pointers[0], pointers[-1]))
        shape = (rows.stop - rows.start, width)
        if len(ratings) == shape[0] * width:
            return positions.reshape(shape), ratings.reshape(shape)
        filled = np.arange(width) < np.diff(pointers)[:, None]
        padded_positions = np.full(shape, len(self.table) - 1, dtype=np.intp)
        padded_positions[filled] = positions
        padded_ratings = np.zeros(shape, dtype=np.float32)
        padded_ratings[filled] = ratings
        return padded_positions, padded_ratings

    def _gather(self, positions: Array, ratings: Array) -> tuple[Array, Array, float]:
        """Weighted source rows (n, w, k), targets (n, w), and the loss at x = 0."""
        shape = (*positions.shape, self.rank)
        gathered = self._gather_buffer[: positions.size * self.rank].reshape(shape)
        # "clip" only spares a bounds check that would buffer the output; positions are in range.
        self.table.take(positions, axis=0, out=gathered, mode="clip")
        ratings = ratings.astype(self.dtype, copy=False)
        if not self.objective.implicit:
            return gathered, ratings, float(np.vdot(ratings, ratings))
        wanted = ratings > 0
        confidence = self.dtype.type(self.objective.alpha) * np.abs(ratings)
        weights = np.sqrt(confidence)
        # alpha = 0 still wants what was rated: a weight next to nothing keeps w t = 1 + c.
        least = self.dtype.type(np.sqrt(np.finfo(self.dtype).tiny))
        np.maximum(weights, least, out=weights, where=wanted)
        gathered *= weights[:, :, None]
        targets = np.zeros_like(ratings)
        np.divide(1 + confidence, weights, out=targets, where=wanted)
        return gathered, targets, float((1 + confidence)[wanted].sum(dtype=np.float64))

    # ------------------------------------------------------------------ the dual form

    def _solve_dual(self, group: Group) -> None:
        width = group.width
        most = max(1, EQUATION_BYTES // (self.dtype.itemsize * max(1, width * width)))
        for rows in self._chunks(group, most):
            gathered, targets, zero_loss = self._gather(*self._entries(rows, width))
            self.clock.book("gather")
            shift, root = self.ridge[rows], None
            if self.objective.implicit:
                root = 1 / np.sqrt(shift)
                gathered *= root[:, None, :]
                shift = self.dtype.type(1)
            # A ridge that is the same in all directions needs no scaling: x = G' (GG' + p)^-1 t.
            system = np.matmul(gathered, gathered.transpose(0, 2, 1))  # (n, w, w)
            system.reshape(len(system), width * width)[:, :: width + 1] += shift
            self.clock.book("gram")
            duals, singular = solve_spd(system, targets.copy())
            self.clock.book("solve")
            both = np.matmul(np.stack([duals, targets], axis=1), gathered)  # (n, 2, k)
            self.solved[rows] = both[:, 0] if root is None else both[:, 0] * root
            self.loss += zero_loss - float(np.vdot(both[:, 0], both[:, 1]))
            self._note_singular(rows, singular)
            self.clock.book("gram")

    # ------------------------------------------------------------------ the primal form

    def _accumulate(self, group: Group) -> None:
        """Add a group's normal equations to the buffer; solve whenever it is full."""
        for rows in self._chunks(group, self.batch):
            count = rows.stop - rows.start
            if self._filled + count > self.batch:
                self._flush()
            into = slice(self._filled, self._filled + count)
            equations, targets = self._equations[into], self._targets[into]
            positions, ratings = self._entries(rows, group.width)
            # A row too long for the buffer is summed piece by piece.
            piece = len(self._gather_buffer) // self.rank if count == 1 else group.width
            for first in range(0, max(1, group.width), max(1, piece)):
                part = slice(first, first + piece)
                gathered, aims, zero_loss = self._gather(positions[:, part], ratings[:, part])
                self.loss += zero_loss
                self.clock.book("gather")
                across = gathered.transpose(0, 2, 1)
                if first == 0:
                    np.matmul(across, gathered, out=equations)
                    np.matmul(aims[:, None, :], gathered, out=targets[:, None, :])
                else:
                    equations += np.matmul(across, gathered)
                    targets += np.matmul(aims[:, None, :], gathered)[:, 0]
                self.clock.book("gram")
            equations.reshape(count, -1)[:, :: self.rank + 1] += self.ridge[rows]
            self._pending.append(rows)
            self._filled += count

    def _flush(self) -> None:
        """Solve the equations gathered so far."""
        if not self._filled:
            return
        equations, targets = self._equations[: self._filled], self._targets[: self._filled]
        if self.common is not None:
            equations += self.common
        if self.objective.nonnegative:
            solved, singular = solve_nonnegative(equations, targets)
        else:
            solved, singular = solve_spd(equations, targets.copy())
        # x'b equals x'Ax at the minimum, constrained or not.
        self.loss -= float(np.vdot(solved, targets))
        first = 0
        for rows in self._pending:
            stop = first + rows.stop - rows.start
            self.solved[rows] = solved[first:stop]
            self._note_singular(rows, singular[first:stop])
            first = stop
        self._pending.clear()
        self._filled = 0
        self.clock.book("solve")

    # ------------------------------------------------------------------ failures

    def _raise_if_overflown(self, rows: Array) -> None:
        singular = self._singular_slots()
        overflown = np.logical_not(np.isfinite(rows).all(axis=1))
        if np.isfinite(self.loss) and not overflown.any() and not len(singular):
            return
        objective = self.objective
        if not np.isfinite(self.ridge).all():
            raise OverflowingRatingsError(
                f"lambda_={objective.lambda_:g} times a number of ratings overflows {self.dtype}. "
                "Use a smaller lambda_."
            )
        largest = float(np.abs(self.in_block.ratings).max(initial=0))
        if objective.implicit:
            largest *= max(1.0, objective.alpha)
        longest = float(self.in_block.degrees.max(initial=0))
        # Squares of values this large are what a factorisation cannot get through.
        values = max(largest, float(np.abs(self.table).max(initial=0)))
        too_large = values**2 * longest > np.finfo(self.dtype).max
        if too_large or not len(singular):
            overflown[self.in_block.order[singular]] = True
            first = int(self.in_block.ids[np.argmax(overflown)])
            what = f"factors of {int(overflown.sum())} ids, {first} the first,"
            raise OverflowingRatingsError(
                f"The {what if overflown.any() else 'squared errors'} overflow "
                f"{self.dtype if too_large else 'float32'}: ratings"
                f"{' times alpha' if objective.implicit else ''} are as large as {largest:g}. "
                "Scale the ratings down."
            )

    def _note_singular(self, rows: slice, singular: Array) -> None:
        if singular.any():
            self.singular.append(np.arange(rows.start, rows.stop)[singular])

    def _note_too_few_sources(self) -> None:
        """Without a ridge, fewer different sources than the rank are singular for certain.

        Rounding can hide that from the pivots. Sources ascend within a row.
        """
        block = self.in_block
        if not len(block.ids):
            return
        new = np.ones(len(block.sources), dtype=bool)
        new[1:] = block.sources[1:] != block.sources[:-1]
        new[block.pointers[:-1]] = True
        distinct = np.add.reduceat(new, block.pointers[:-1], dtype=np.int64)
        self.singular.append(np.flatnonzero(distinct < self.rank))

    def _singular_slots(self) -> Array:
        return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *self.singular]))

    def _raise_if_singular(self) -> None:
        slots = self._singular_slots()
        if not len(slots):
            return
        ids = self.in_block.ids[self.in_block.order[slots]]
        raise SingularSystemError(ids.tolist(), self.rank, self.objective.lambda_)
