"""Half-step: solve the factors of a block from the source rows it needs.

Each row solves a regularised least-squares problem. With G (d, k) the source rows of its d
ratings, scaled by the weights w, and t the targets,

    x = (G' G + diag(p))^-1 G' t.

Explicit feedback: w = 1, t = r, p = lambda n. Implicit feedback adds Y'Y over *all* source rows
to every system. In the eigenbasis of Y'Y = Q L Q' this term is diagonal too, p = L + lambda n, so
both kinds share one equation once the source rows are rotated by Q. With c = alpha |r| the weights
are w = sqrt(c), and t = (1 + c) / w for r > 0, else 0.

A row with d < k ratings is cheaper in its dual form (Woodbury): with H = G diag(p)^-1/2,

    x = diag(p)^-1/2 H' (H H' + I)^-1 t,

a system of order d instead of k; the results are equal to rounding.

Two implementations solve these equations under one contract: `rddals.kernels.batched` in NumPy,
and `rddals.kernels.native` in C if its library can be loaded.

The solution also gives the loss: at the minimum, ``e - x'(G't)`` is the row's squared error plus
its own penalty, where e is the error of x = 0: the sum of r^2, or of 1 + c over ratings above zero.

References
----------
Zhou, Wilkinson, Schreiber and Pan, "Large-scale parallel collaborative filtering for the Netflix
prize", AAIM 2008 (explicit). Hu, Koren and Volinsky, "Collaborative filtering for implicit
feedback datasets", ICDM 2008 (implicit).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.links import InBlock
from rddals.config import Kernels, Objective
from rddals.errors import OverflowingRatingsError, SettingError, SingularSystemError
from rddals.kernels import native
from rddals.kernels.batched import batched_rows
from rddals.kernels.flops import flops
from rddals.kernels.native.rows import NativeRows
from rddals.kernels.system import System, penalty_counts

Array = NDArray[Any]

#: Operations per task of a thread: some tenths of a millisecond.
PIECE_FLOPS = 2e7
#: Maximum tasks per block, and the multiple of rows in each task (whole groups of lanes).
MAX_PIECES, PIECE_ROWS = 64, 16


@dataclass(frozen=True, slots=True)
class Solution:
    """Result of a half-step.

    Attributes
    ----------
    rows : ndarray of float32, shape (n, rank)
        The factors of the block's ids, in their order.
    loss : float
        Squared errors of the block (weighted if implicit) plus its own penalty, before the
        factors are rounded to float32.
    penalty : float
        Penalty part of the loss: ``lambda sum n |x|^2``.
    seconds : dict of str to float
        Time spent in "gather", "gram" and "solve". The compiled kernels and multiple threads
        report "solve" alone.
    kernels : {"native", "numpy"}
        The implementation that ran.
    """

    rows: NDArray[np.float32]
    loss: float
    penalty: float
    seconds: dict[str, float]
    kernels: str


def half_step(
    in_block: InBlock,
    source_rows: NDArray[np.float32],
    objective: Objective,
    source_gram: NDArray[np.float64] | None = None,
    *,
    kernels: Kernels = "auto",
    threads: Executor | None = None,
) -> Solution:
    """Solve every row of a block.

    Parameters
    ----------
    in_block : InBlock
    source_rows : ndarray of float32, shape (len(in_block.source_ids), rank)
        Source rows that the block needs, in canonical order.
    objective : Objective
    source_gram : ndarray of float64, shape (rank, rank), optional
        ``Y'Y`` over all rows of the source side; implicit feedback only.
    kernels : {"auto", "native", "numpy"}
        Implementation; "auto" uses the compiled one if its library can be loaded.
    threads : Executor, optional
        Threads that solve different rows in parallel.

    Raises
    ------
    SingularSystemError
        If the equations of some ids, listed in the error, have no unique solution.
    OverflowingRatingsError
        If the ratings are so large that factors are not finite.
    SettingError
        If the compiled kernels are requested and unavailable.
    ValueError
        If `source_rows` has the wrong shape, or `source_gram` is missing.
    """
    expected = (len(in_block.source_ids), objective.rank)
    if source_rows.shape != expected:
        raise ValueError(f"source_rows must have shape {expected} but got {source_rows.shape}")
    if objective.implicit and source_gram is None:
        raise ValueError("source_gram is None; implicit feedback needs Y'Y over all source rows")
    started = perf_counter()
    name = chosen_kernels(kernels)
    system = System.of(in_block, source_rows, objective, source_gram)
    solve = NativeRows(system).solve if name == "native" else batched_rows(system)
    if objective.lambda_ == 0 and not objective.implicit:
        _mark_underdetermined(system)
    loss, seconds = _solve(system, solve, threads)
    rows = _factors(system)
    _raise_if_overflowed(system, rows, loss)
    _raise_if_singular(system)
    rest = perf_counter() - started - sum(seconds.values())
    seconds["solve"] += rest
    return Solution(rows, loss, penalty(in_block, rows, objective), seconds, name)


def chosen_kernels(kernels: str) -> str:
    """Return the implementation that runs in this process: "native" or "numpy".

    If the compiled kernels are requested and unavailable, raise `SettingError`.
    """
    if kernels == "numpy" or native.library() is not None:
        return "numpy" if kernels == "numpy" else "native"
    if kernels == "native":
        raise SettingError(
            f"kernels='native' but the compiled library is unavailable: {native.unavailable()}. "
            "Pass kernels='auto' or kernels='numpy'."
        )
    return "numpy"


def gram(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Gram matrix ``rows' rows`` in float64, of shape (rank, rank)."""
    wide = rows.astype(np.float64)
    return np.asarray(wide.T @ wide)


def penalty(in_block: InBlock, rows: NDArray[np.float32], objective: Objective) -> float:
    """Return ``lambda sum n |x|^2`` of a block's factors; `rows` are in the order of its ids."""
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    counts = penalty_counts(in_block, objective)
    return float(objective.lambda_ * (counts @ squares[in_block.order]))


def _solve(
    system: System,
    solve: Callable[[slice], tuple[float, dict[str, float]]],
    threads: Executor | None,
) -> tuple[float, dict[str, float]]:
    """Solve all rows; with threads, in pieces of about equal work."""
    count = len(system.ridge)
    if threads is None or not count:
        return solve(slice(0, count))
    started = perf_counter()
    work = np.cumsum(flops(system.in_block.degrees, system.objective.rank))
    pieces = int(np.clip(work[-1] / PIECE_FLOPS, 1, MAX_PIECES))
    cuts = np.searchsorted(work, work[-1] * np.arange(1, pieces) / pieces)
    cuts = np.unique(np.concatenate([[0], cuts // PIECE_ROWS * PIECE_ROWS, [count]]))
    slices = [slice(a, b) for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)]
    # The last rows have the most ratings: start them first, so that no thread finishes late.
    solved = list(threads.map(solve, slices[::-1])) if len(slices) > 1 else [solve(slices[0])]
    return sum(loss for loss, _ in solved), {"solve": perf_counter() - started}


def _factors(system: System) -> NDArray[np.float32]:
    """Return the solutions as factors, in the order of the block's ids."""
    solved = system.solved
    if system.rotation is not None:
        solved = solved @ system.rotation.T
    rows = np.empty(solved.shape, dtype=np.float32)
    with np.errstate(over="ignore"):
        rows[system.in_block.order] = solved
    return rows


def _raise_if_overflowed(system: System, rows: Array, loss: float) -> None:
    singular = np.flatnonzero(system.singular)
    overflowed = np.logical_not(np.isfinite(rows).all(axis=1))
    if np.isfinite(loss) and not overflowed.any() and not len(singular):
        return
    objective, in_block = system.objective, system.in_block
    dtype = objective.dtype
    if not np.isfinite(system.ridge).all():
        raise OverflowingRatingsError(
            f"lambda_={objective.lambda_:g} times a number of ratings overflows {dtype}. "
            "Use a smaller lambda_."
        )
    largest = float(np.abs(in_block.ratings).max(initial=0))
    if objective.implicit:
        largest *= max(1.0, objective.alpha)
    most_ratings = float(in_block.degrees.max(initial=0))
    # The factorisation overflows if the squares of such values do.
    values = max(largest, float(np.abs(system.source_rows).max(initial=0)))
    too_large = values**2 * most_ratings > np.finfo(dtype).max
    if too_large or not len(singular):
        overflowed[in_block.order[singular]] = True
        first = int(in_block.ids[np.argmax(overflowed)])
        factors = f"factors of {int(overflowed.sum())} ids (first: {first})"
        raise OverflowingRatingsError(
            f"The {factors if overflowed.any() else 'squared errors'} overflow "
            f"{dtype if too_large else 'float32'}: ratings"
            f"{' times alpha' if objective.implicit else ''} are as large as {largest:g}. "
            "Scale the ratings down."
        )


def _mark_underdetermined(system: System) -> None:
    """Mark rows with fewer distinct sources than the rank as singular.

    Without a ridge they always are, but rounding can hide it from the pivots.
    """
    block = system.in_block
    if not len(block.ids):
        return
    # Sources ascend within a row, so repeats are adjacent.
    new = np.ones(len(block.sources), dtype=bool)
    new[1:] = block.sources[1:] != block.sources[:-1]
    new[block.pointers[:-1]] = True
    distinct = np.add.reduceat(new, block.pointers[:-1], dtype=np.int64)
    system.singular[distinct < system.objective.rank] = True


def _raise_if_singular(system: System) -> None:
    slots = np.flatnonzero(system.singular)
    if not len(slots):
        return
    ids = system.in_block.ids[system.in_block.order[slots]]
    raise SingularSystemError(ids.tolist(), system.objective.rank, system.objective.lambda_)
