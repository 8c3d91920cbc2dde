"""All that the model of a stream is."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from rddals.blocks.factors import FactorBlock
from rddals.blocks.sides import USERS
from rddals.rdds.factors import FactorTable
from rddals.rdds.lifetimes import cut_lineage
from rddals.streaming.levels import Level, Levels
from rddals.streaming.rows import centred_rows

__all__ = ["StreamState"]

#: Ratings that each id of a batch-trained model counts as having been learned from.
ASSUMED_RATINGS = 20


@dataclass(frozen=True, slots=True)
class StreamState:
    """All that a stream's model is.

    Attributes
    ----------
    sides : pair of Levels
        Users' and products' rows, as `rddals.streaming.rows` lays them out.
    ids : pair of int
        How many users and products there are.
    total : Fraction
        The sum of all ratings, exactly.
    ratings : int
        How many there were.
    batches : int
    history : pair of Levels, or None
        All ratings, by user and by product, where they are learned from again.
    """

    sides: tuple[Levels, Levels]
    ids: tuple[int, int] = (0, 0)
    total: Fraction = Fraction(0)
    ratings: int = 0
    batches: int = 0
    history: tuple[Levels, Levels] | None = None

    @property
    def all_levels(self) -> tuple[Levels, ...]:
        """All that a model of this state holds."""
        return (*self.sides, *(self.history or ()))

    @property
    def mean(self) -> float:
        """The mean of all ratings so far; 0 if there was none."""
        return float(self.total / self.ratings) if self.ratings else 0.0

    @classmethod
    def of_factors(cls, sides: tuple[FactorTable, FactorTable], rank: int) -> StreamState:
        """A state that predicts what factors without biases do, to go on from.

        Mean and biases are parts of the factors' dot product: with ``u`` and ``p`` the means of
        all users' and of all products' factors, ``U.P`` is ``u.p + (U - u).p + u.(P - p) +
        (U - u).(P - p)``. How many ratings an id was learned from, factors do not tell: each
        counts as having had `ASSUMED_RATINGS`.
        """
        means = [table.mean(rank).astype(np.float64) for table in sides]
        levels: list[Levels] = []
        ids: list[int] = []
        try:
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
        except BaseException:
            for made in levels:
                made.retain().release()
            raise
        ratings = ASSUMED_RATINGS * ids[USERS]
        return cls(
            sides=(levels[0], levels[1]),
            ids=(ids[0], ids[1]),
            total=Fraction(float(means[0] @ means[1])) * ratings,
            ratings=ratings,
        )


def _size(block: FactorBlock) -> int:
    return len(block.ids)
