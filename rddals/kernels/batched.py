"""Half-step in NumPy: batched normal equations and batched solves.

This is the readable implementation, the reference for the compiled kernels, and the fallback if
they are unavailable. `rddals.kernels.half_step` states the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.links import Group
from rddals.kernels.flops import DUAL_SHARE
from rddals.kernels.solvers import solve_nonnegative, solve_spd
from rddals.kernels.system import System

Array = NDArray[Any]

#: Bytes of gathered rows processed at a time: few calls, and they fit in the cache.
TILE_BYTES = 1 << 20
#: Bytes of normal equations solved at a time.
EQUATION_BYTES = 1 << 21


def batched_rows(system: System) -> Callable[[slice], tuple[float, dict[str, float]]]:
    """Return a function that solves some rows of a system; threads may call it in parallel.

    The function returns the loss of these rows (squared errors plus penalty), and the seconds spent
    in "gather", "gram" and "solve".
    """
    rows = system.source_rows
    # The extra last row is for padding: zeros add nothing to any sum.
    table = np.zeros((len(rows) + 1, rows.shape[1]), dtype=system.objective.dtype)
    table[:-1] = rows
    return lambda part: _Batches(system, table).run(part)


class _Batches:
    """Batches of rows, and the buffers of one thread."""

    def __init__(self, system: System, table: Array) -> None:
        self.in_block = system.in_block
        self.objective = system.objective
        self.rank = rank = system.objective.rank
        self.dtype = dtype = system.objective.dtype
        self.table = table
        self.common = system.common
        self.solved, self.singular = system.solved, system.singular
        self.dual = system.dual
        self.seconds = {"gather": 0.0, "gram": 0.0, "solve": 0.0}
        self.last = perf_counter()
        # Added to the diagonal: (n, k) for implicit feedback, (n, 1) for explicit.
        self.ridge = system.ridge[:, None]
        if system.rotation is not None:
            self.ridge = self.ridge + system.eigenvalues
        self.loss = 0.0
        self._gather_buffer = np.empty(max(TILE_BYTES // dtype.itemsize, rank), dtype=dtype)
        self.batch = max(1, EQUATION_BYTES // (dtype.itemsize * rank * rank))
        self._equations = np.empty((self.batch, rank, rank), dtype=dtype)
        self._targets = np.empty((self.batch, rank), dtype=dtype)
        self._pending: list[slice] = []
        self._filled = 0

    def run(self, rows: slice) -> tuple[float, dict[str, float]]:
        for group in self.in_block.groups:
            start, stop = max(group.start, rows.start), min(group.stop, rows.stop)
            if start >= stop:
                continue
            part = Group(start, stop, group.width)
            if self.dual and self._dual_pays(group.width):
                self._solve_dual(part)
            else:
                self._accumulate(part)
        self._flush()
        return self.loss, self.seconds

    def _book(self, part: str) -> None:
        """Add the time since the last call to a part."""
        now = perf_counter()
        self.seconds[part] += now - self.last
        self.last = now

    def _dual_pays(self, width: int) -> bool:
        fits = width * self.rank <= len(self._gather_buffer)  # the dual form needs whole rows
        return fits and width < DUAL_SHARE * self.rank

    # ------------------------------------------------------------------ gathering

    def _chunks(self, group: Group, most_rows: int) -> Iterator[slice]:
        """Yield batches of a group's rows whose gathered source rows fit the buffer."""
        fit = len(self._gather_buffer) // max(1, group.width * self.rank)
        step = max(1, min(fit, most_rows))
        for start in range(group.start, group.stop, step):
            yield slice(start, min(start + step, group.stop))

    def _entries(self, rows: slice, width: int) -> tuple[Array, Array]:
        """Return source positions and ratings of rows, padded to `width`; shapes (n, width)."""
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
        """Return weighted source rows (n, w, k), targets (n, w), and the loss at x = 0."""
        shape = (*positions.shape, self.rank)
        gathered = self._gather_buffer[: positions.size * self.rank].reshape(shape)
        # Positions are in range; "clip" avoids a bounds check that would buffer the output.
        self.table.take(positions, axis=0, out=gathered, mode="clip")
        ratings = ratings.astype(self.dtype, copy=False)
        if not self.objective.implicit:
            return gathered, ratings, float(np.vdot(ratings, ratings))
        positive = ratings > 0
        confidence = self.dtype.type(self.objective.alpha) * np.abs(ratings)
        weights = np.sqrt(confidence)
        # With alpha = 0 the weight is 0 but w t must be 1 + c, so use a tiny weight instead.
        least = self.dtype.type(np.sqrt(np.finfo(self.dtype).tiny))
        np.maximum(weights, least, out=weights, where=positive)
        gathered *= weights[:, :, None]
        targets = np.zeros_like(ratings)
        np.divide(1 + confidence, weights, out=targets, where=positive)
        return gathered, targets, float((1 + confidence)[positive].sum(dtype=np.float64))

    # ------------------------------------------------------------------ the dual form

    def _solve_dual(self, group: Group) -> None:
        width = group.width
        most = max(1, EQUATION_BYTES // (self.dtype.itemsize * max(1, width * width)))
        for rows in self._chunks(group, most):
            gathered, targets, zero_loss = self._gather(*self._entries(rows, width))
            self._book("gather")
            shift, root = self.ridge[rows], None
            if self.objective.implicit:
                root = 1 / np.sqrt(shift)
                gathered *= root[:, None, :]
                shift = self.dtype.type(1)
            # An equal ridge in all directions needs no scaling: x = G' (GG' + p)^-1 t.
            system = np.matmul(gathered, gathered.transpose(0, 2, 1))  # (n, w, w)
            system.reshape(len(system), width * width)[:, :: width + 1] += shift
            self._book("gram")
            duals, singular = solve_spd(system, targets.copy())
            self._book("solve")
            both = np.matmul(np.stack([duals, targets], axis=1), gathered)  # (n, 2, k)
            self.solved[rows] = both[:, 0] if root is None else both[:, 0] * root
            self.loss += zero_loss - float(np.vdot(both[:, 0], both[:, 1]))
            self.singular[rows] |= singular
            self._book("gram")

    # ------------------------------------------------------------------ the primal form

    def _accumulate(self, group: Group) -> None:
        """Add a group's normal equations to the buffer; solve them when it is full."""
        for rows in self._chunks(group, self.batch):
            count = rows.stop - rows.start
            if self._filled + count > self.batch:
                self._flush()
            slots = slice(self._filled, self._filled + count)
            equations, targets = self._equations[slots], self._targets[slots]
            positions, ratings = self._entries(rows, group.width)
            # A row too long for the buffer is summed piece by piece.
            piece = len(self._gather_buffer) // self.rank if count == 1 else group.width
            for first in range(0, max(1, group.width), max(1, piece)):
                part = slice(first, first + piece)
                gathered, aims, zero_loss = self._gather(positions[:, part], ratings[:, part])
                self.loss += zero_loss
                self._book("gather")
                across = gathered.transpose(0, 2, 1)
                if first == 0:
                    np.matmul(across, gathered, out=equations)
                    np.matmul(aims[:, None, :], gathered, out=targets[:, None, :])
                else:
                    equations += np.matmul(across, gathered)
                    targets += np.matmul(aims[:, None, :], gathered)[:, 0]
                self._book("gram")
            equations.reshape(count, -1)[:, :: self.rank + 1] += self.ridge[rows]
            self._pending.append(rows)
            self._filled += count

    def _flush(self) -> None:
        """Solve the equations in the buffer."""
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
            self.singular[rows] |= singular[first:stop]
            first = stop
        self._pending.clear()
        self._filled = 0
        self._book("solve")
