"""All that the model of a stream is."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from rddals.rdds.levels import Levels

__all__ = ["StreamState"]


@dataclass(frozen=True, slots=True)
class StreamState:
    """All that a stream's model is.

    Attributes
    ----------
    sides : pair of Levels
        Users' and products' rows, as `rddals.blocks.biased` lays them out.
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
    def held(self) -> tuple[Levels, ...]:
        """All that a model of this state holds."""
        return (*self.sides, *(self.history or ()))

    @property
    def mean(self) -> float:
        """The mean of all ratings so far; 0 if there was none."""
        return float(self.total / self.ratings) if self.ratings else 0.0
