"""The combinations of settings that a study trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

#: Exchange name of runs of MLlib's own ALS, which has one exchange and hashes ids.
MLLIB = "MLlib"


@dataclass(frozen=True, slots=True)
class Combination:
    """Settings of one training."""

    exchange: str
    partitioner: str
    blocks: int
    rank: int

    @classmethod
    def of(cls, run: dict[str, Any]) -> Combination:
        """Build the combination of a run in ``study.json``."""
        return cls(run["exchange"], run["partitioner"], run["blocks"], run["rank"])

    def __str__(self) -> str:
        """Return the label for progress output and the report."""
        return f"{self.exchange}, {self.partitioner}, {self.blocks} blocks, rank {self.rank}"


@dataclass(frozen=True, slots=True)
class Grid:
    """Cartesian product of exchanges, partitioners, numbers of blocks and ranks."""

    exchanges: tuple[str, ...]
    partitioners: tuple[str, ...]
    blocks: tuple[int, ...]
    ranks: tuple[int, ...]
    mllib: bool = False

    def combinations(self) -> list[Combination]:
        """Return all combinations, without duplicates."""
        rddals_runs = [
            Combination(exchange, partitioner, blocks, rank)
            for rank, blocks, partitioner, exchange in product(
                self.ranks, self.blocks, self.partitioners, self.exchanges
            )
        ]
        mllib_runs = [
            Combination(MLLIB, "hash", blocks, rank)
            for rank, blocks in product(self.ranks, self.blocks)
            if self.mllib
        ]
        return list(dict.fromkeys(rddals_runs + mllib_runs))

    def missing(self, done: Sequence[Combination]) -> list[Combination]:
        """Return the combinations that are not in `done`."""
        return [each for each in self.combinations() if each not in set(done)]
