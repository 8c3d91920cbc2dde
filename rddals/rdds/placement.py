"""Placement of ids: the caller's request, and partitioners fitted to the ratings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

#: Data that a partitioner is fitted to: the number of ratings of each id, or all pairs of ids.
DEGREES, PAIRS = "degrees", "pairs"

#: Names of the partitioners that are fitted to the ratings: the data they need, and the fit.
FITTED: dict[str, tuple[str, Callable[[Any, int], Partitioner]]] = {
    "range": (DEGREES, lambda degrees, blocks: RangePartitioner.fit(degrees.ids, blocks)),
    "balanced": (
        DEGREES,
        lambda degrees, blocks: DegreeBalancedPartitioner.fit(degrees.ids, degrees.counts, blocks),
    ),
    "locality": (PAIRS, lambda pairs, blocks: LocalityPartitioner.fit(pairs[0], pairs[1], blocks)),
}
#: Names of all partitioners.
PARTITIONERS = ("hash", *FITTED)


@dataclass(frozen=True, slots=True)
class Placement:
    """Requested placement of the ids of one side.

    Attributes
    ----------
    requested : Partitioner, callable or str
        A partitioner, a function from id to block, or one of `PARTITIONERS`.
    blocks : int or None
        Number of blocks; None for the default.
    """

    requested: Any
    blocks: int | None

    @property
    def needs(self) -> str | None:
        """Data that the partitioner is fitted to: `DEGREES`, `PAIRS`, or None if it is not."""
        fitted = isinstance(self.requested, str) and self.requested in FITTED
        return FITTED[self.requested][0] if fitted else None

    @property
    def name(self) -> str:
        """Name of the partitioner, for reports."""
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
        """Return the partitioner, with `default` blocks if no number is requested.

        It is fitted to what it `needs`: the degrees of this side's ids, or the pairs of this side's
        and the other side's id of every rating.
        """
        blocks = self.blocks or default
        if isinstance(self.requested, Partitioner):
            return self.requested
        if callable(self.requested):
            return FunctionPartitioner(blocks, self.requested)
        if self.needs is None:
            return HashPartitioner(blocks)
        data = degrees if self.needs == DEGREES else pairs
        assert data is not None
        return FITTED[self.requested][1](data, blocks)


def checked_placement(name: str, requested: Any, blocks: int | None, blocks_name: str) -> Placement:
    """Validate a caller's partitioner and number of blocks; raise `SettingError`.

    `name` and `blocks_name` are the names of the caller's arguments, for the message.
    """
    if isinstance(requested, Partitioner):
        if blocks is not None and blocks != requested.num_blocks:
            raise SettingError(
                f"{name} has {requested.num_blocks} blocks but {blocks} were requested. "
                f"Leave out {blocks_name}, or make them equal."
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
    """Requested placement of the ids of both sides."""

    def __init__(
        self, blocks: Any, user_blocks: Any, product_blocks: Any, user: Any, product: Any
    ) -> None:
        both = block_count("Number of blocks", blocks)
        self.sides = tuple(
            checked_placement(
                f"{side}Partitioner",
                requested,
                block_count(f"{side}Blocks", blocks) or both,
                f"{side}Blocks and blocks",
            )
            for side, requested, blocks in (
                ("user", user, user_blocks),
                ("product", product, product_blocks),
            )
        )

    def partitioners(self, source: RDD[Any]) -> tuple[Partitioner, Partitioner]:
        """Return both sides' partitioners, fitted to the ratings if necessary."""
        default = max(source.context.defaultParallelism, source.getNumPartitions() // 2)
        degrees: Sequence[Degrees | None] = (None, None)
        users, products = self.sides
        needed = (users.needs, products.needs)
        if DEGREES in needed:
            degrees = count_degrees(source)
        pairs = collect_pairs(source) if PAIRS in needed else None
        return (
            users.partitioner(default, degrees[0], pairs),
            products.partitioner(default, degrees[1], pairs and pairs[::-1]),
        )
