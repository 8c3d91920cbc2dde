"""What a study combines with what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

__all__ = ["MLLIB", "Combination", "Grid"]

#: In the place of an exchange: MLlib's own ALS, which has one exchange and hashes ids.
MLLIB = "MLlib"


@dataclass(frozen=True, slots=True)
class Combination:
    """One training of a study."""

    exchange: str
    partitioner: str
    blocks: int
    rank: int

    @classmethod
    def of(cls, run: dict[str, Any]) -> Combination:
        """That of a run in ``study.json``."""
        return cls(run["exchange"], run["partitioner"], run["blocks"], run["rank"])

    def __str__(self) -> str:
        """As the progress and the report call it."""
        return f"{self.exchange}, {self.partitioner}, {self.blocks} blocks, rank {self.rank}"

    def document(self) -> dict[str, Any]:
        """Its part of a run in ``study.json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Grid:
    """Exchanges, partitioners, numbers of blocks and ranks; each with each."""

    exchanges: tuple[str, ...]
    partitioners: tuple[str, ...]
    blocks: tuple[int, ...]
    ranks: tuple[int, ...]
    mllib: bool = False

    def combinations(self) -> list[Combination]:
        """All trainings, each once."""
        ours = [
            Combination(exchange, partitioner, blocks, rank)
            for rank, blocks, partitioner, exchange in product(
                self.ranks, self.blocks, self.partitioners, self.exchanges
            )
        ]
        theirs = [
            Combination(MLLIB, "hash", blocks, rank)
            for rank, blocks in product(self.ranks, self.blocks)
            if self.mllib
        ]
        return list(dict.fromkeys(ours + theirs))

    def missing(self, done: Sequence[Combination]) -> list[Combination]:
        """The trainings that are still to be run."""
        return [each for each in self.combinations() if each not in set(done)]
