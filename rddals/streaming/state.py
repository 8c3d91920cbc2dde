"""State of a stream's model."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from rddals.blocks.factors import FactorBlock
from rddals.blocks.sides import USERS
from rddals.rdds.factors import FactorTable
from rddals.rdds.lifetimes import cut_lineage, undo_on_failure
from rddals.streaming.levels import Level, Levels
from rddals.streaming.rows import centred_rows

#: Number of ratings that each id of a batch-trained model is assumed to be learned from.
ASSUMED_RATINGS = 20


@dataclass(frozen=True, slots=True)
class StreamState:
    """State of a stream's model.

    Attributes
    ----------
    sides : pair of Levels
        Rows of users and of products, in the layout of `rddals.streaming.rows`.
    ids : pair of int
        Numbers of users and of products.
    total : Fraction
        Exact sum of all ratings.
    ratings : int
        Number of ratings.
    batches : int
        Number of batches.
    history : pair of Levels, or None
        All ratings, by user and by product; None with ``update="sgd"``.
    """

    sides: tuple[Levels, Levels]
    ids: tuple[int, int] = (0, 0)
    total: Fraction = Fraction(0)
    ratings: int = 0
    batches: int = 0
    history: tuple[Levels, Levels] | None = None

    @property
    def all_levels(self) -> tuple[Levels, ...]:
        """Levels that a model of this state holds."""
        return (*self.sides, *(self.history or ()))

    @property
    def mean(self) -> float:
        """Mean of all ratings so far; 0 without ratings."""
        return float(self.total / self.ratings) if self.ratings else 0.0

    @classmethod
    def of_factors(cls, sides: tuple[FactorTable, FactorTable], rank: int) -> StreamState:
        """Build a state with the predictions of factors without biases.

        Mean and biases are parts of the factors' dot product: with ``u`` and ``p`` the means of
        all users' and of all products' factors, ``U.P`` is ``u.p + (U - u).p + u.(P - p) +
        (U - u).(P - p)``. Factors do not record the number of ratings per id; `ASSUMED_RATINGS`
        is used for each.
        """
        means = [table.mean(rank).astype(np.float64) for table in sides]
        levels: list[Levels] = []
        ids: list[int] = []
        with undo_on_failure() as undo:
            for side, table in enumerate(sides):
                centred = partial(
                    centred_rows,
                    mean=means[side],
                    other_mean=means[1 - side],
                    count=ASSUMED_RATINGS,
                )
                ids.append(sum(table.blocks.map(_size).collect()))
                blocks = Levels(table.partitioner, (Level(table.blocks, 0),)).view(centred).blocks
                cut_lineage(blocks)
                levels.append(Levels(table.partitioner, (Level(blocks, ids[side]),)))
                undo.callback(levels[-1].discard)
        ratings = ASSUMED_RATINGS * ids[USERS]
        return cls(
            sides=(levels[0], levels[1]),
            ids=(ids[0], ids[1]),
            total=Fraction(float(means[0] @ means[1])) * ratings,
            ratings=ratings,
        )


def _size(block: FactorBlock) -> int:
    return len(block.ids)
