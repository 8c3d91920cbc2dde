"""Where ids are to live, as asked for, and as fitted to ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD

from partitioners import (
    DegreeBalancedPartitioner,
    FunctionPartitioner,
    HashPartitioner,
    LocalityPartitioner,
    Partitioner,
    RangePartitioner,
)
from rddals.config import block_count
from rddals.errors import SettingError
from rddals.rdds.degrees import Degrees, collect_pairs, count_degrees

__all__ = ["PARTITIONERS", "Placement", "Placements", "checked_placement"]

#: Those that have a name; all but the first are fitted to the ratings.
PARTITIONERS = ("hash", "range", "balanced", "locality")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the ids of one side are to live.

    Attributes
    ----------
    asked : Partitioner, callable or str
        A partitioner, a function from id to block, or one of `PARTITIONERS`.
    blocks : int or None
        None where nothing is said.
    """

    requested: Any
    blocks: int | None

    @property
    def needs_degrees(self) -> bool:
        """Whether it is fitted to how many ratings each id has."""
        return isinstance(self.requested, str) and self.requested in ("range", "balanced")

    @property
    def needs_pairs(self) -> bool:
        """Whether it is fitted to who has rated what."""
        return isinstance(self.requested, str) and self.requested == "locality"

    @property
    def name(self) -> str:
        """What to call it."""
        if isinstance(self.requested, str):
            return self.requested
        if isinstance(self.requested, Partitioner):
            return type(self.requested).__name__
        return str(getattr(self.requested, "__name__", type(self.requested).__name__))

    def partitioner(
        self,
        default: int,
        degrees: Degrees | None = None,
        pairs: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None,
    ) -> Partitioner:
        """The partitioner.

        Parameters
        ----------
        default : int
            How many blocks, if nothing is said.
        degrees : Degrees, optional
            Of this side's ids, if it needs them.
        pairs : pair of ndarray of int32, optional
            This side's and the other side's id of every rating, if it needs them.
        """
        blocks = self.blocks or default
        if isinstance(self.requested, Partitioner):
            return self.requested
        if self.requested == "hash":
            return HashPartitioner(blocks)
        if callable(self.requested):
            return FunctionPartitioner(blocks, self.requested)
        if self.requested == "locality":
            assert pairs is not None
            return LocalityPartitioner.fit(*pairs, blocks)
        assert degrees is not None
        if self.requested == "range":
            return RangePartitioner.fit(degrees.ids, blocks)
        return DegreeBalancedPartitioner.fit(degrees.ids, degrees.counts, blocks)


def checked_placement(name: str, requested: Any, blocks: int | None, blocks_name: str) -> Placement:
    """What a caller passed, or a `SettingError` that says what to pass.

    Parameters
    ----------
    name, blocks_name : str
        What the caller knows the partitioner and the number of blocks by.
    """
    if isinstance(requested, Partitioner):
        if blocks is not None and blocks != requested.num_blocks:
            raise SettingError(
                f"{name} has {requested.num_blocks} blocks but {blocks} were asked for; "
                f"leave out {blocks_name}, or make them agree."
            )
        return Placement(requested, requested.num_blocks)
    if requested is None:
        return Placement("hash", blocks)
    if callable(requested) or (isinstance(requested, str) and requested in PARTITIONERS):
        return Placement(requested, blocks)
    raise SettingError(
        f"{name} must be a Partitioner, a function from id to block, or one of "
        f"{', '.join(PARTITIONERS)}, but got {requested!r}."
    )


class Placements:
    """Where the ids of both sides are to live, as asked for."""

    def __init__(
        self, blocks: Any, user_blocks: Any, product_blocks: Any, user: Any, product: Any
    ) -> None:
        both = block_count("Number of blocks", blocks)
        self.sides = (
            checked_placement(
                "userPartitioner",
                user,
                block_count("userBlocks", user_blocks) or both,
                "userBlocks and blocks",
            ),
            checked_placement(
                "productPartitioner",
                product,
                block_count("productBlocks", product_blocks) or both,
                "productBlocks and blocks",
            ),
        )

    def partitioners(self, source: RDD[Any]) -> tuple[Partitioner, Partitioner]:
        """The partitioners, fitted to the ratings where that was asked for."""
        default = max(source.context.defaultParallelism, source.getNumPartitions() // 2)
        degrees: Sequence[Degrees | None] = (None, None)
        if any(placement.needs_degrees for placement in self.sides):
            degrees = count_degrees(source)
        pairs = None
        if any(placement.needs_pairs for placement in self.sides):
            pairs = collect_pairs(source)
        users, products = self.sides
        return (
            users.partitioner(default, degrees[0], pairs),
            products.partitioner(default, degrees[1], pairs and pairs[::-1]),
        )
