"""One gradient step of the biased model, for all ids of a block at once.

The model predicts ``mean + b_x + b_y + U_x.P_y``. With the other side's rows as they are, the
squared errors of an id's ratings in a batch, and its penalty for each of them, are a quadratic
function of its row ``(U_x, b_x)``. Its gradient is summed over the batch; how far to go along it
is what decides whether anything is learned, and whether anything blows up:

- A bias is an average in the making. Its step is one over ``1/gamma + n``, with n the id's ratings
  so far, this batch's included, so that each of them weighs alike however they were batched.
- A factor follows those of the other side, which move themselves: its step is ``gamma`` over the
  root of n, which never dies out.
- Neither is longer than one over the quadratic's curvature, which is at most
  ``sum (1 + |P_y|^2) + lambda d`` over the id's d ratings of the batch. So no step overshoots, be
  it of one rating or of five hundred, on whatever scale.

A row that is stepped several times in a batch is drawn back to where the batch found it, with the
weight of the ratings it was learned from: else the batch would be learned by heart.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rddals.blocks.links import InBlock

__all__ = ["sgd_step", "squared_error"]

Rows = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: Ratings that are looked at together: what is gathered for them fits the cache.
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
    """The rows of a block after one step.

    Parameters
    ----------
    in_block : InBlock
        The ratings of the batch.
    rows : ndarray of float32, shape (n, rank + 1)
        Factor and bias of each of the block's ids, in their order.
    seen : ndarray of float32, shape (n,)
        How many ratings of each came before this batch.
    source_rows : ndarray of float32, shape (m, rank + 1)
        Factors and biases of the other side, in canonical order.
    mean : float
    lambda_, gamma : float
        Weight of the penalty, and learning rate.
    anchor : ndarray of float32, shape (n, rank + 1), optional
        Where the batch found the rows; those they have if left out.

    Returns
    -------
    ndarray of float32, shape (n, rank + 1)
        Not finite where ratings are too large for it.
    """
    order, degrees = in_block.order, in_block.degrees.astype(np.float64)
    own = rows[order].astype(np.float64)
    gradient = np.empty_like(own)
    curvature = np.empty(len(own))
    for chunk, errors, gathered in _errors(in_block, own, source_rows, mean):
        starts = in_block.pointers[chunk] - in_block.pointers[chunk.start]
        gathered[:, -1] = 1.0  # what a bias is multiplied by
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
    with np.errstate(over="ignore"):  # told of by whoever knows the ids
        stepped[order] = own
    return stepped


def squared_error(in_block: InBlock, rows: Rows, source_rows: Rows, mean: float) -> float:
    """The sum of squared errors of a block's predictions; parameters as those of `sgd_step`."""
    own = rows[in_block.order].astype(np.float64)
    return sum(float(errors @ errors) for _, errors, _ in _errors(in_block, own, source_rows, mean))


def _inertia(seen: Doubles, gamma: float, width: int) -> Doubles:
    """One over the length of a step: of factors ``sqrt(n) / gamma``, of biases ``1/gamma + n``."""
    inertia = np.repeat(np.sqrt(seen)[:, None] / gamma, width, axis=1)
    inertia[:, -1] = 1 / gamma + seen
    return inertia


def _errors(
    in_block: InBlock, own: Doubles, source_rows: Rows, mean: float
) -> Iterator[tuple[slice, Doubles, Doubles]]:
    """Rows by the chunk, errors of their ratings, and the source rows of these.

    `own` is in the order of the block's rows. Chunks hold whole rows, and what is yielded is the
    caller's to change.
    """
    pointers, degrees = in_block.pointers, in_block.degrees
    start = 0
    while start < len(own):
        full = np.searchsorted(pointers, pointers[start] + CHUNK, side="right") - 1
        chunk = slice(start, max(start + 1, int(full)))
        entries = slice(pointers[chunk.start], pointers[chunk.stop])
        gathered = source_rows.take(in_block.sources[entries], axis=0).astype(np.float64)
        mine = np.repeat(own[chunk], degrees[chunk], axis=0)
        predicted = np.einsum("ij,ij->i", gathered[:, :-1], mine[:, :-1])
        predicted += gathered[:, -1] + mine[:, -1] + mean
        yield chunk, in_block.ratings_of(entries) - predicted, gathered
        start = chunk.stop
