"""Gradient step of the biased model for all ids of a block at once.

The model predicts ``mean + b_x + b_y + U_x.P_y``. With the rows of the other side fixed, the
squared errors of an id's ratings in a batch, plus a penalty for each of them, are a quadratic
function of its row ``(U_x, b_x)``. The gradient is summed over the batch, and the step size is:

- For a bias, ``1 / (1/gamma + n)``, where n is the number of ratings of the id so far, including
  this batch. All its ratings then weigh the same, however they are batched.
- For a factor, ``gamma / sqrt(n)``. It decays more slowly, because the factors of the other side
  change too.
- For both, at most one over the curvature of the quadratic, which is at most
  ``sum (1 + |P_y|^2) + lambda d`` over the id's d ratings of the batch. No step overshoots, for any
  number of ratings on any scale.

If a batch takes several steps, each also pulls the row towards its value before the batch,
weighted by the ratings it was learned from. This prevents overfitting the batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.links import InBlock

Rows = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: Ratings processed at a time, so that the gathered source rows fit in the cache.
CHUNK = 1 << 13


def sgd_step(
    in_block: InBlock,
    rows: Rows,
    seen: NDArray[np.float32],
    source_rows: Rows,
    mean: float,
    *,
    lambda_: float,
    gamma: float,
    anchor: Rows | None = None,
) -> Rows:
    """Return the rows (n, rank + 1) of a block after one step; not finite if ratings are too large.

    Rows are a factor and a bias, in order of the ids; source rows are in canonical order. `seen`
    (n,) is the number of ratings of each id before this batch, and `anchor` the rows before the
    batch, by default `rows`.
    """
    order, degrees = in_block.order, in_block.degrees.astype(np.float64)
    own = rows[order].astype(np.float64)
    gradient = np.empty_like(own)
    curvature = np.empty(len(own))
    for chunk, errors, gathered in _errors(in_block, own, source_rows, mean):
        starts = in_block.pointers[chunk] - in_block.pointers[chunk.start]
        gathered[:, -1] = 1.0  # the coefficient of a bias
        squares = np.einsum("ij,ij->i", gathered, gathered)
        curvature[chunk] = np.add.reduceat(squares, starts)
        gathered *= errors[:, None]
        gradient[chunk] = np.add.reduceat(gathered, starts)
    gradient -= (lambda_ * degrees)[:, None] * own
    curvature += lambda_ * degrees

    before = seen[order].astype(np.float64)
    inertia = _inertia(before + degrees, gamma, own.shape[1])
    if anchor is not None:
        pull = _inertia(before, gamma, own.shape[1])
        gradient -= pull * (own - anchor[order])
        inertia = np.maximum(inertia, pull + curvature[:, None])
    own += gradient / np.maximum(inertia, curvature[:, None])
    stepped = np.empty(own.shape, dtype=np.float32)
    with np.errstate(over="ignore"):  # the caller reports it with the ids
        stepped[order] = own
    return stepped


def squared_error(in_block: InBlock, rows: Rows, source_rows: Rows, mean: float) -> float:
    """Return the sum of squared errors of a block's predictions; arguments as in `sgd_step`."""
    own = rows[in_block.order].astype(np.float64)
    return sum(float(errors @ errors) for _, errors, _ in _errors(in_block, own, source_rows, mean))


def _inertia(seen: Doubles, gamma: float, width: int) -> Doubles:
    """Return inverse step sizes: ``sqrt(n) / gamma`` for factors, ``1/gamma + n`` for biases."""
    inertia = np.repeat(np.sqrt(seen)[:, None] / gamma, width, axis=1)
    inertia[:, -1] = 1 / gamma + seen
    return inertia


def _errors(
    in_block: InBlock, own: Doubles, source_rows: Rows, mean: float
) -> Iterator[tuple[slice, Doubles, Doubles]]:
    """Yield chunks of rows, the errors of their ratings, and the source rows of the ratings.

    `own` is in the order of the block's rows. Chunks contain whole rows. The caller may modify the
    yielded arrays.
    """
    pointers, degrees = in_block.pointers, in_block.degrees
    start = 0
    while start < len(own):
        full = np.searchsorted(pointers, pointers[start] + CHUNK, side="right") - 1
        chunk = slice(start, max(start + 1, int(full)))
        entries = slice(pointers[chunk.start], pointers[chunk.stop])
        gathered = source_rows.take(in_block.sources[entries], axis=0).astype(np.float64)
        own_rows = np.repeat(own[chunk], degrees[chunk], axis=0)
        predicted = np.einsum("ij,ij->i", gathered[:, :-1], own_rows[:, :-1])
        predicted += gathered[:, -1] + own_rows[:, -1] + mean
        yield chunk, in_block.ratings_of(entries) - predicted, gathered
        start = chunk.stop
